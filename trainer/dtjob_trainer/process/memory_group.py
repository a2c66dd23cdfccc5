"""The memory cgroup that this process is in: its limit, and how many processes it has killed.

In a pod that is the container's. Version 2 of cgroups counts in `memory.events`, version 1 in
`memory.oom_control` and `memory.failcnt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What version 1 calls no limit: the largest number of whole pages.
_UNLIMITED = 2**62


@dataclass(frozen=True)
class MemoryCount:
    """What a group has counted so far.

    Attributes
    ----------
    kills
        Processes of the group that an out-of-memory killer has ended, its own or the machine's.
    at_limit
        How often the group could not stay below its own limit.
    limit
        In bytes; None without one.
    """

    kills: int
    at_limit: int
    limit: int | None


def read(process: Path = Path("/proc/self")) -> MemoryCount | None:
    """Return what the memory group of `process` has counted; None where that is unknown."""
    try:
        place, version = folder(process)
        if version == 2:
            events = _numbers(place / "memory.events")
            limit = (place / "memory.max").read_text(encoding="ascii").strip()
            bytes_ = None if limit == "max" else int(limit)
            return MemoryCount(events["oom_kill"], events["oom"], bytes_)
        kills = _numbers(place / "memory.oom_control")["oom_kill"]
        at_limit = _number(place / "memory.failcnt")
        bytes_ = _number(place / "memory.limit_in_bytes")
        return MemoryCount(kills, at_limit, bytes_ if bytes_ < _UNLIMITED else None)
    except (OSError, LookupError, ValueError):
        return None


def folder(process: Path) -> tuple[Path, int]:
    """Return where the group's files are, and the version of its hierarchy.

    A machine may have both versions: then memory is in the one that names it.
    """
    # The path of each list of controllers; version 2 has an empty one.
    groups = dict(line.split(":", 2)[1:] for line in _lines(process / "cgroup"))
    mounts = [_mount(line) for line in _lines(process / "mountinfo")]
    for controllers, path in groups.items():
        if "memory" in controllers.split(","):
            (mount,) = [m for m in mounts if m["type"] == "cgroup" and "memory" in m["options"]][:1]
            return _below(mount, path), 1
    (mount,) = [m for m in mounts if m["type"] == "cgroup2"][:1]
    return _below(mount, groups[""]), 2


def _mount(line: str) -> dict[str, str]:
    """Return root, place, type and options of a mount, from its line of `mountinfo`."""
    before, _, after = line.partition(" - ")
    fields, rest = before.split(), after.split()
    return {
        "root": fields[3],
        "place": fields[4],
        "type": rest[0],
        "options": ",".join(rest[2:]),
    }


def _below(mount: Mapping[str, str], path: str) -> Path:
    """Return the folder of a group; a container sees its own at the top of the mount."""
    place, root = Path(mount["place"]), Path(mount["root"])
    inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
    group = place / inside
    return group if group.is_dir() and ".." not in inside.parts else place


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _numbers(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in _lines(path))}


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
