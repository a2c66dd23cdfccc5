"""A supervisor's child processes: the ranks of one attempt and, on the coordinator, the store."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from dtjob_api.wire.gang import End
from dtjob_api.wire.pipe import FromRank, Progress, RankEnd, ToRank
from dtjob_trainer.process import confine, memory_group
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker import deaths
from dtjob_trainer.worker.deaths import Death, MemoryKills
from dtjob_trainer.worker.pricing import SegmentAccountant
from dtjob_trainer.worker.rank_output import RankOutput

#: The reason of a supervisor that ends because no rank will ever start; none of a job's.
RANKS_CANNOT_START = "RanksCannotStart"
#: What Python takes for the exit code of a child whose forkserver has died.
DIED_WITH_NURSERY = 255
#: How long the death of a forkserver may be heard of after that of its child.
_NURSERY_DEATH_SECONDS = 0.5


class CannotStart(Exception):
    """No child starts: what starts them has died, or (`lasting`) will never start one."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class Child(Protocol):
    """What a supervisor needs of a process that it started; as `multiprocessing` has it."""

    @property
    def pid(self) -> int | None:
        """Its process ID; None before it is started."""
        ...

    @property
    def exitcode(self) -> int | None:
        """How it ended, negative by a signal; None while it lives."""
        ...

    @property
    def sentinel(self) -> int:
        """A file descriptor that is readable once it has ended."""
        ...

    def start(self) -> None:
        """Start it."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    def join(self) -> None:
        """Wait for its end."""
        ...

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        ...


class Nursery(Protocol):
    """Where a supervisor's children come from: ranks and, on worker 0, store and accountant."""

    #: What the worker's memory group has killed: of its ranks and of what starts them.
    kills: MemoryKills

    @property
    def death(self) -> Death | None:
        """How it died; None while it can start children."""
        ...

    def open(self, ranks: int) -> None:
        """Begin to get ready for `ranks` at a time; called from the main thread."""
        ...

    async def warm_up(self) -> None:
        """Return once children start at once; raise CannotStart if it dies, or they never will."""
        ...

    def rank(self, setup: RankSetup, pipe: Connection, output: Connection) -> Child:
        """Return a rank's process, to be started, that prints to `output`."""
        ...

    def store(self, listener: socket.socket) -> Child:
        """Return the store's process, to be started."""
        ...

    def accountant(self) -> SegmentAccountant:
        """Return the helper that computes epsilon, started."""
        ...


def start(child: Child) -> None:
    """Start a child; raise CannotStart if what starts it dies meanwhile."""
    try:
        child.start()
    except (EOFError, ConnectionError) as error:
        raise CannotStart("the forkserver died while it started a process") from error


def serve_store(listener: socket.socket) -> None:
    """Hold torch's TCPStore on `listener` until the supervisor ends."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    confine.end_with_parent(signal.SIGKILL)
    port = listener.getsockname()[1]
    store = TCPStore(
        "127.0.0.1",
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
        use_libuv=False,
    )
    while store.port:
        signal.pause()


class Store:
    """The store's process, on the loopback alone; it outlives ranks and attempts.

    The listener stays open here too: ranks that come while the store is dead wait for the next.

    Attributes
    ----------
    port
        Where it listens.
    """

    def __init__(self, nursery: Nursery, listener: socket.socket) -> None:
        self._nursery, self._listener = nursery, listener
        self.port: int = listener.getsockname()[1]
        self._process: Child | None = None

    @property
    def lives(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the store, or start it again once it is dead; may raise CannotStart."""
        process = self._nursery.store(self._listener)
        start(process)
        self._process = process

    def stop(self) -> None:
        """Kill it and close its listener."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._listener.close()


class Ranks:
    """The rank processes of one attempt on this worker.

    `on_progress(rank, progress)` is called in the event loop for all that a rank reports, and
    `on_end(End)` once for each rank when its process is gone. `output(rank)` makes what a rank
    prints to.

    Raises
    ------
    CannotStart
        None runs: those that were started are ended again.
    """

    def __init__(
        self,
        nursery: Nursery,
        setups: list[RankSetup],
        on_progress: Callable[[int, Progress], None],
        on_end: Callable[[End], None],
        output: Callable[[int], RankOutput],
    ) -> None:
        self._output = output
        self._on_progress = on_progress
        self._on_end = on_end
        self._pipes: dict[int, Connection] = {}
        self._processes: dict[int, Child] = {}
        self._reported_ends: dict[int, End] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._nursery = nursery
        try:
            for setup in setups:
                self._start(setup)
        except CannotStart:
            for process in self._processes.values():
                process.kill()
            for pipe in self._pipes.values():
                pipe.close()
            raise

    def _start(self, setup: RankSetup) -> None:
        ours, theirs = multiprocessing.Pipe()
        with theirs, self._output(setup.rank) as output:
            self._pipes[setup.rank] = ours
            process = self._nursery.rank(setup, theirs, output)
            self._nursery.kills.started(process, memory_group.read())
            start(process)
            self._processes[setup.rank] = process

    def watch(self) -> None:
        """Begin to follow the processes; call in the event loop."""
        loop = asyncio.get_running_loop()
        for rank, process in self._processes.items():
            loop.add_reader(self._pipes[rank].fileno(), self._read, rank)
            self._watchers.append(asyncio.create_task(self._follow(rank, process)))

    @property
    def pids(self) -> dict[int, int | None]:
        """Process ids by rank."""
        return {rank: process.pid for rank, process in self._processes.items()}

    def send(self, rank: int, message: ToRank) -> bool:
        """Send a message to a rank; False if it is gone."""
        try:
            self._pipes[rank].send(message)
        except OSError:
            return False
        return True

    async def kill(self) -> None:
        """End every process of the attempt, stopped ones too, and wait until they are gone."""
        for process in self._processes.values():
            process.kill()
        await asyncio.gather(*self._watchers)

    def _read(self, rank: int) -> None:
        pipe = self._pipes[rank]
        try:
            while pipe.poll():
                self._take(rank, pipe.recv())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(pipe.fileno())

    def _take(self, rank: int, message: FromRank) -> None:
        match message:
            case Progress():
                self._on_progress(rank, message)
            case RankEnd(kind, reason, detail):
                self._reported_ends[rank] = End(kind=kind, rank=rank, reason=reason, message=detail)

    async def _follow(self, rank: int, process: Child) -> None:
        await until_ended(process)
        self._read(rank)
        asyncio.get_running_loop().remove_reader(self._pipes[rank].fileno())
        self._pipes[rank].close()
        code, now = process.exitcode, memory_group.read()
        before = self._nursery.kills.before(process, code, now)
        died = deaths.end_of_rank(rank, code, before, now)
        if code == DIED_WITH_NURSERY and (death := await self._nursery_death()) is not None:
            died = deaths.end_with_another(rank, death)
        self._on_end(self._reported_ends.get(rank) or died)

    async def _nursery_death(self) -> Death | None:
        # A child's end is heard a moment before that of its forkserver.
        until = time.monotonic() + _NURSERY_DEATH_SECONDS
        while (death := self._nursery.death) is None and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return death


async def until_ended(process: Child) -> None:
    """Wait for a process without a thread: its sentinel becomes readable when it is gone."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process.sentinel, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


def threads_per_rank(ranks: int) -> int:
    """CPU threads for each rank.

    OMP_NUM_THREADS where it is set, else the container's CPU limit shared out among the ranks, at
    least one.
    """
    if (given := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        return max(1, int(given))
    return max(1, int(_cpu_limit()) // ranks)


def _cpu_limit() -> float:
    """CPUs of this container: the cgroup's quota (v2, v1), else what the scheduler allows."""
    allowed = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = _read_first("/sys/fs/cgroup/cpu.max").split()
        return min(allowed, int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):
        quota = _read_first("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        if int(quota) > 0:
            return min(
                allowed, int(quota) / int(_read_first("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
            )
    return allowed


def _read_first(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.readline().strip()
