"""What the tests of durability share: a tiny job, a disk that loses power, a driver."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from dtjob_api.ledger.privacy_ledger import (
    LedgerStatus,
    PrivacyLedger,
    PrivacyPlan,
    Provenance,
)
from dtjob_trainer.gang.attempts import begin_attempt
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.backend import Ledger, Versioned
from dtjob_trainer.ledger.checkpoint import CheckpointStore, TrainingState
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.leasing import LeasedDraws, ReserveSpent
from dtjob_trainer.ledger.recovery import contradiction
from tests.support.builders import PROVENANCE, START, UID, new_ledger, tiny_plan


def state_at(step: int) -> TrainingState:
    """The training state of `step`: a model whose one parameter is the step."""
    return TrainingState({"weight": torch.tensor([float(step)])}, {"lr": 0.5})


class Clock:
    """Advances a second at each look."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class Job:
    """A job on a volume, and what an independent witness saw of it.

    Attributes
    ----------
    given
        Every draw that was ever given out.
    charged
        What the ledger had charged at the last look; it must never fall.
    """

    def __init__(self, root: Path, privacy_plan: PrivacyPlan | None = None) -> None:
        self.root, self.state_dir = root, root / "state"
        self.state_dir.mkdir(parents=True)
        self.plan = privacy_plan or tiny_plan()
        self.ledger: Ledger = FileLedger(root / "ledger")
        self.clock = Clock()
        self.given: list[int] = []
        self.charged = 0

    def create(self) -> None:
        FileLedger(self.root / "ledger").create(new_ledger(self.plan))

    def read(self) -> PrivacyLedger:
        return self.ledger.read().ledger

    def begin(self) -> int:
        return begin_attempt(self.ledger, self.clock()).ledger.status.attempt

    def leased(self, attempt: int, *, keep: int = 2) -> LeasedDraws:
        store = CheckpointStore(self.state_dir, UID, self.plan, keep)
        return LeasedDraws(self.ledger, store, attempt, clock=self.clock)

    def opened(
        self, *, provenance: Provenance = PROVENANCE, **options: Any
    ) -> tuple[LeasedDraws, int]:
        """A new attempt's leased, resumed and opened, and the step to go on from."""
        leased = self.leased(self.begin(), **options)
        point, checkpoint = leased.resume()
        if checkpoint is not None:
            assert checkpoint.state.model["weight"].item() == checkpoint.step == point.step
        leased.open(state_at(point.step), 4096, provenance)
        return leased, point.step

    def draw(self, leased: LeasedDraws) -> int | None:
        draw = leased.next_draw()
        if draw is not None:
            self.given.append(draw)
        return draw

    def run(self, stop_after: int | None = None) -> None:
        """One attempt, to the end of the job or, in order, after step `stop_after`."""
        leased, step = self.opened()
        while step < self.plan.steps:
            try:
                if self.draw(leased) is None:
                    leased.publish(step, state_at(step))
                    continue
            except ReserveSpent:
                break
            step += 1
            if step == stop_after:
                leased.close(step, state_at(step))
                return
        leased.succeed(step, state_at(step), result={"step": step}, message="done")

    def run_if_unfinished(self) -> None:
        if self.read().status.outcome is None:
            self.run()

    def check(self) -> PrivacyLedger:
        """What must hold after anything: rules 10, 13 and 14, seen by the witness."""
        ledger = self.read()
        status = ledger.status
        assert contradiction(ledger) is None
        assert len(set(self.given)) == len(self.given), "a draw was handed out twice"
        assert all(draw < status.charged for draw in self.given), "a draw was never charged"
        assert self.charged <= status.charged <= ledger.spec.reserved_draws
        self.charged = status.charged
        return ledger


Fault = Callable[[str, tuple[Any, ...]], int | None]
"""From a call's name and arguments to the errno with which it fails, or None."""


def no_fault(name: str, arguments: tuple[Any, ...]) -> int | None:
    return None


class Crash(BaseException):
    """The process is gone: nothing of its own code runs after this."""


class Disk:
    """Stands in for `os` in `durable`: counts its calls, can end the process or the power.

    Models what POSIX promises and no more: after the power is gone a file has the content of
    its last fsync (nothing, without one), and a folder the names of its own last fsync.

    Parameters
    ----------
    crash_at
        Number of the call (from 1) before which the process dies. Writes that follow one
        another count once; the first of them then leaves half of its bytes.
    """

    COUNTED = frozenset({"open", "write", "fsync", "rename", "link", "unlink", "mkdir"})

    def __init__(self, root: Path, crash_at: int | None = None) -> None:
        self.root, self.crash_at, self.calls = root, crash_at, 0
        self.fail: Fault = no_fault
        self._last, self.dead = "", False
        self._all_is_durable()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in self.COUNTED else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if (name, self._last) != ("write", "write"):
                self.calls += 1
            self._last = name
            if self.crash_at is not None and self.calls >= self.crash_at:
                if name == "write" and not self.dead:
                    os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                self.dead = True
                raise Crash(f"call {self.calls}: {name}")
            if error := self.fail(name, arguments):
                raise OSError(error, os.strerror(error))
            if name == "fsync":
                return self._fsync(arguments[0])
            result = real(*arguments, **options)
            if name == "open" and arguments[1] & os.O_CREAT:
                self._content.pop(os.fstat(result).st_ino, None)
            return result

        return call

    def _fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._names[path] = _names(path)
        else:
            self._content[os.fstat(descriptor).st_ino] = path.read_bytes()

    def power_off(self) -> None:
        """Put the tree into the state that it has after the power comes back."""
        tree = self._durable_tree(self.root)
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for path, content in tree.items():
            path.mkdir() if content is None else path.write_bytes(content)
        self._all_is_durable()

    def _durable_tree(self, folder: Path) -> dict[Path, bytes | None]:
        tree: dict[Path, bytes | None] = {}
        for name, inode in self._names.get(folder, {}).items():
            path = folder / name
            tree[path] = None if inode is None else self._content.get(inode, b"")
            if inode is None:
                tree |= self._durable_tree(path)
        return tree

    def _all_is_durable(self) -> None:
        folders = [self.root, *(path for path in self.root.rglob("*") if path.is_dir())]
        files = [path for path in self.root.rglob("*") if path.is_file()]
        self._names = {folder: _names(folder) for folder in folders}
        self._content = {path.stat().st_ino: path.read_bytes() for path in files}


def _names(folder: Path) -> dict[str, int | None]:
    return {entry.name: None if entry.is_dir() else entry.inode() for entry in os.scandir(folder)}


def full_disk_after(calls: int) -> Fault:
    """Every write from the `calls`-th on finds no space."""
    left = calls

    def fail(name: str, arguments: tuple[Any, ...]) -> int | None:
        nonlocal left
        if name != "write":
            return None
        left -= 1
        return errno.ENOSPC if left < 0 else None

    return fail


class LossyLedger:
    """A ledger whose network loses answers and whose other writers get in between.

    Parameters
    ----------
    interfere
        Called with the number of each write (from 1): "lose" carries it out and loses the
        answer, "drop" loses the request, "conflict" lets the operator write first.
    """

    def __init__(self, inner: FileLedger, interfere: Callable[[int], str | None]) -> None:
        self._inner, self._interfere, self.writes = inner, interfere, 0

    def read(self) -> Versioned:
        return self._inner.read()

    def wait(self, version: str, timeout: float) -> Versioned | None:
        return self._inner.wait(version, timeout)

    def replace_status(self, versioned: Versioned, status: LedgerStatus) -> Versioned:
        from dtjob_trainer.ledger.backend import AnswerLost

        self.writes += 1
        what = self._interfere(self.writes)
        if what == "conflict":
            run = versioned.ledger.spec.run
            raised = run.model_copy(update={"generation": run.generation + 1})
            spec = versioned.ledger.spec.model_copy(update={"run": raised})
            self._inner.replace_spec(versioned, spec)
        if what == "drop":
            raise AnswerLost("the request was lost")
        written = self._inner.replace_status(versioned, status)
        if what == "lose":
            raise AnswerLost("the answer was lost")
        return written


def with_disk(disk: Disk, monkeypatch: Any) -> None:
    """Let `durable` use `disk`."""
    monkeypatch.setattr(durable, "os", disk)
