"""What a memory group has counted, by the files of both versions of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtjob_trainer.process.memory_group import MemoryCount, read

UNLIMITED = 9223372036854771712
EVENTS = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 0\n"
OOM_CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"


class Machine:
    """A root file system with the files that tell of one process."""

    def __init__(self, folder: Path) -> None:
        self.process = folder / "proc" / "self"
        self.process.mkdir(parents=True)
        self.cgroups = folder / "sys" / "fs" / "cgroup"

    def group(self, *lines: str) -> None:
        (self.process / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mounts(self, *mounts: tuple[str, str, str, str]) -> None:
        """Root, place below /sys/fs/cgroup, type and options of each."""
        (self.process / "mountinfo").write_text(
            "".join(
                f"31 24 0:27 {root} {self.cgroups / place} rw shared:9 - {kind} cgroup {how}\n"
                for root, place, kind, how in mounts
            )
        )

    def files(self, place: str, **contents: str) -> None:
        folder = self.cgroups / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / f"memory.{name}").write_text(content)

    def read(self) -> MemoryCount | None:
        return read(self.process)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(("limit", "bytes_"), [("1073741824\n", 2**30), ("max\n", None)])
def test_a_container_of_version_2_sees_its_group_at_the_top(
    machine: Machine, limit: str, bytes_: int | None
) -> None:
    machine.group("0::/")
    machine.mounts(("/", "", "cgroup2", "rw,nsdelegate"))
    machine.files("", events=EVENTS, max=limit)

    assert machine.read() == MemoryCount(kills=3, at_limit=2, limit=bytes_)


def test_a_process_of_the_machine_has_its_group_below(machine: Machine) -> None:
    machine.group("0::/user.slice/shell.scope")
    machine.mounts(("/", "", "cgroup2", "rw"))
    machine.files("", events="oom 90\noom_kill 90\n")
    machine.files("user.slice/shell.scope", events=EVENTS, max="max\n")

    assert machine.read() == MemoryCount(kills=3, at_limit=2, limit=None)


def test_a_group_outside_of_the_containers_view_is_its_top(machine: Machine) -> None:
    machine.group("0::/../elsewhere")
    machine.mounts(("/", "", "cgroup2", "rw"))
    machine.files("", events=EVENTS, max="4096\n")

    assert machine.read() == MemoryCount(kills=3, at_limit=2, limit=4096)


@pytest.mark.parametrize(("limit", "bytes_"), [(2**30, 2**30), (UNLIMITED, None)])
def test_version_1_counts_in_other_files(machine: Machine, limit: int, bytes_: int | None) -> None:
    """A container has its own group mounted, while its path is that of the machine."""
    machine.group("5:cpu,cpuacct:/pods/one", "4:memory:/pods/one", "0::/")
    machine.mounts(
        ("/pods/one", "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
        ("/pods/one", "memory", "cgroup", "rw,memory"),
        ("/", "unified", "cgroup2", "rw"),
    )
    machine.files("memory", oom_control=OOM_CONTROL, failcnt="12\n", limit_in_bytes=f"{limit}\n")

    assert machine.read() == MemoryCount(kills=3, at_limit=12, limit=bytes_)


def test_a_group_of_version_1_below_the_mount(machine: Machine) -> None:
    machine.group("4:memory:/jobs/seven")
    machine.mounts(("/", "memory", "cgroup", "rw,memory"))
    machine.files("memory", oom_control="oom_kill 0\n")
    machine.files(
        "memory/jobs/seven", oom_control=OOM_CONTROL, failcnt="0\n", limit_in_bytes="4096\n"
    )

    assert machine.read() == MemoryCount(kills=3, at_limit=0, limit=4096)


def test_where_nothing_tells_nothing_is_known(machine: Machine) -> None:
    assert machine.read() is None
    machine.group("0::/")
    assert machine.read() is None
    machine.mounts(("/", "", "cgroup2", "rw"))  # without the memory controller
    assert machine.read() is None
    machine.files("", events="oom 1\n", max="max\n")  # a kernel that does not count kills
    assert machine.read() is None
