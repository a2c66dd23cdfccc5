"""What a supervisor's children and their forkserver died of, and how multiprocessing reports it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable
from multiprocessing import forkserver, popen_forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import End
from dtjob_trainer.process import memory_group
from dtjob_trainer.process.memory_group import MemoryCount
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker.deaths import Death
from dtjob_trainer.worker.forkserver import Forkserver, forkserver_pid
from dtjob_trainer.worker.processes import DIED_WITH_NURSERY, CannotStart, Ranks
from dtjob_trainer.worker.rank_output import RankOutput

CHANGED = (
    f"multiprocessing of Python {platform.python_version()} is not as that of 3.11, with which "
    "forkserver.py was tried"
)


class Group:
    """A memory group that has killed so many."""

    def __init__(self) -> None:
        self.kills = 0

    def read(self) -> MemoryCount:
        return MemoryCount(self.kills, at_limit=0, limit=None)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    found = Group()
    monkeypatch.setattr(memory_group, "read", found.read)
    return found


class Child:
    """A process that ends when it is told to."""

    pid = 1

    def __init__(self, pipe: Connection) -> None:
        self.exitcode: int | None = None
        self.sentinel, self._end = os.pipe()
        self._pipe = Connection(os.dup(pipe.fileno()))

    def start(self) -> None:
        pass

    def join(self) -> None:
        os.close(self.sentinel)

    def dies(self, exit_code: int = -signal.SIGKILL) -> None:
        self.exitcode = exit_code
        self._pipe.close()
        os.close(self._end)


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Forkserver:
    """One whose ranks are no processes; its forkserver is real, and imports nothing."""
    monkeypatch.setattr("dtjob_trainer.worker.forkserver.PRELOAD", [])
    monkeypatch.setattr(forkserver, "_forkserver", server := forkserver.ForkServer())
    monkeypatch.setattr(forkserver, "ensure_running", server.ensure_running)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = Forkserver(lambda *_: None)
    monkeypatch.setattr(found, "rank", lambda _, pipe, _output: Child(pipe))
    return found


def started(nursery: Forkserver) -> int:
    """The process of a forkserver that is started now."""
    nursery.open(1)
    pid = forkserver_pid()
    assert pid is not None
    return pid


def unkept(_rank: int) -> RankOutput:
    """The output of a rank that nobody keeps."""
    return RankOutput(lambda _: None)


async def killed_in_turn(
    nursery: Forkserver,
    ranks: int,
    counts: Callable[[int], None],
    exit_code: int = -signal.SIGKILL,
) -> list[End]:
    """How ranks end that are killed one after the other."""
    ends: asyncio.Queue[End] = asyncio.Queue()
    setups = [RankSetup("{}", 1, rank, rank, ranks, 1, 1) for rank in range(ranks)]
    started = Ranks(nursery, setups, lambda *_: None, ends.put_nowait, unkept)
    started.watch()
    found = []
    for rank, child in started._processes.items():
        counts(rank)
        child.dies(exit_code)  # type: ignore[attr-defined]
        found.append(await asyncio.wait_for(ends.get(), 60))
    return found


def test_a_kill_explains_one_death_of_an_attempts_ranks(group: Group, nursery: Forkserver) -> None:
    def counts(rank: int) -> None:
        group.kills = 1 if rank < 2 else 2

    found = asyncio.run(killed_in_turn(nursery, 3, counts))
    assert [end.reason for end in found] == [
        Reason.OUT_OF_MEMORY,
        Reason.RANK_FAILED,
        Reason.OUT_OF_MEMORY,
    ]


def test_an_import_that_fails_is_reported_with_its_likely_causes(
    group: Group, nursery: Forkserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = multiprocessing.Pipe()
    child = Child(theirs)
    child.dies()
    child.exitcode = 1
    monkeypatch.setattr(nursery._context, "Process", lambda **_: child)
    with pytest.raises(CannotStart, match="not installed whole, or there is no memory") as caught:
        asyncio.run(nursery.warm_up())
    assert caught.value.lasting
    ours.close()


@pytest.mark.parametrize("another", [False, True])
def test_a_ranks_kill_explains_no_later_death_of_the_forkserver(
    group: Group, nursery: Forkserver, another: bool
) -> None:
    pid = started(nursery)

    def counts(_rank: int) -> None:
        group.kills = 1

    asyncio.run(killed_in_turn(nursery, 1, counts))
    group.kills += another
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    death = nursery.death
    assert death is not None
    assert ("out of memory: the machine" in death.words) == another
    assert (death.reason is Reason.OUT_OF_MEMORY) == another
    assert nursery.death == death, "asked again"
    os.waitpid(pid, 0)


@pytest.mark.parametrize("killed", [False, True])
def test_a_rank_that_its_forkserver_takes_down_says_what_that_died_of(
    group: Group, nursery: Forkserver, killed: bool
) -> None:
    pid = started(nursery)

    def counts(_rank: int) -> None:
        group.kills = int(killed)
        os.kill(pid, signal.SIGKILL)

    (end,) = asyncio.run(killed_in_turn(nursery, 1, counts, DIED_WITH_NURSERY))
    words = "rank 0 ended with what had started it: the forkserver was ended by SIGKILL: "
    assert end.message.startswith(words)
    assert end.reason is (Reason.OUT_OF_MEMORY if killed else Reason.RANK_FAILED)
    os.waitpid(pid, 0)


def test_a_rank_may_itself_exit_with_that_code(group: Group, nursery: Forkserver) -> None:
    pid = started(nursery)
    (end,) = asyncio.run(killed_in_turn(nursery, 1, lambda _: None, DIED_WITH_NURSERY))
    assert (end.exit_code, end.reason) == (DIED_WITH_NURSERY, Reason.RANK_FAILED)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_forkserver_tells_of_what_it_died(nursery: Forkserver) -> None:
    assert nursery.death == Death("the forkserver was not started"), CHANGED
    pid = started(nursery)
    assert nursery.death is None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    died = nursery.death
    assert died is not None
    assert died.words.startswith("the forkserver was ended by SIGKILL: ")
    os.waitpid(pid, 0)
    assert nursery.death == Death("the forkserver is gone")


def test_multiprocessing_knows_the_process_of_its_forkserver(nursery: Forkserver) -> None:
    pid = started(nursery)
    assert os.getppid() != pid
    while not (command := Path(f"/proc/{pid}/cmdline").read_bytes()):
        time.sleep(0.001)  # between fork and exec it has none
    assert b"multiprocessing.forkserver" in command, CHANGED
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_child_of_a_forkserver_that_died_has_an_exit_code_of_its_own() -> None:
    child = object.__new__(popen_forkserver.Popen)
    child.returncode = None
    child.sentinel, end = os.pipe()
    os.close(end)
    assert child.poll() == DIED_WITH_NURSERY, CHANGED
    os.close(child.sentinel)
