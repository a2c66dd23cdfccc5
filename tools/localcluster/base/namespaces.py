"""Running commands in namespaces of their own, and finding a cluster's processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def private_command(argv: list[str]) -> list[str]:
    """Return `argv` made such that it leaves neither mounts nor processes, however it ends.

    It gets a mount and a PID namespace, and dies with the thread that starts it.
    """
    prefix = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
    prefix += ["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    return [*prefix, *argv]


def entered(pid: int) -> bool:
    """Whether process `pid` has left this process's network and mount namespaces."""
    own, other = Path("/proc/self/ns"), Path(f"/proc/{pid}/ns")
    return all((own / kind).readlink() != (other / kind).readlink() for kind in ("net", "mnt"))


def first_member(holder: int) -> int | None:
    """Return PID 1 of a PID namespace as this process numbers it, or None if there is none.

    Parameters
    ----------
    holder
        The process that made the namespace and stays outside of it.
    """
    namespace = Path(f"/proc/{holder}/ns/pid_for_children").readlink()
    if namespace == Path(f"/proc/{holder}/ns/pid").readlink():
        return None  # it has not made it yet
    for pid in pids():
        with suppress(OSError):
            if Path(f"/proc/{pid}/ns/pid").readlink() == namespace and _own_number(pid) == 1:
                return pid
    return None


def child(parent: int, number: int) -> int | None:
    """Return the child of process `parent` that its own PID namespace numbers so, if there is one.

    Parameters
    ----------
    parent
        As this process numbers it.
    number
        As the child numbers itself.
    """
    for pid in pids():
        with suppress(OSError):
            if _parent(pid) == parent and _own_number(pid) == number:
                return pid
    return None


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _own_number(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    numbers = next(line for line in lines if line.startswith("NSpid:"))
    return int(numbers.split()[-1])


def in_cgroup(path: str) -> Iterator[int]:
    """Yield the PIDs of all processes whose cgroup's path has `path` in it, in any hierarchy."""
    for pid in pids():
        with suppress(OSError):
            if path in Path(f"/proc/{pid}/cgroup").read_text():
                yield pid


def pids() -> Iterator[int]:
    """Yield the PIDs of all processes that this process sees."""
    for folder in Path("/proc").glob("[0-9]*"):
        yield int(folder.name)
