"""A rank by script: the trainer's account of draws and its loop; steps that compute nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from dtjob_api.ledger.privacy_ledger import LedgerSpec, Provenance
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.worker_config import LedgerRef, WorkerConfig
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.ledger import leasing
from dtjob_trainer.ledger.backend import Ledger
from dtjob_trainer.ledger.checkpoint import TrainingState, expected_bytes
from dtjob_trainer.ledger.leasing import LeasedDraws
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.rank import failures, loop
from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.rank.rank import ORDERLY
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.task import TaskError, load_task
from standin.meeting import Meeting, RankLost
from standin.script import ENTRYPOINT, Deed, Fault, Script
from standin.threads import Exit, Life, MortalLedger

_LOOK_SECONDS = 0.05
DRAWS = "draws.jsonl"
"""A file of the checkpoint volume: each draw that the coordinator was given, for tests."""


@dataclass(frozen=True)
class Means:
    """What a rank has of its worker.

    Attributes
    ----------
    ledgers
        Opens the job's ledger.
    leave
        Ends the whole worker with an exit code.
    garble
        Whether the worker's report is to be nonsense from now on.
    """

    ledgers: Callable[[LedgerRef], Ledger]
    leave: Callable[[int], None]
    garble: Callable[[bool], None]


class Weights(str):
    """A model's only parameter; a checkpoint needs to know how much room it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of it in a file."""
        return len(self)


class JsonFormat:
    """Checkpoint files without torch."""

    def write(self, payload: Mapping[str, Any], file: BinaryIO) -> None:
        """Write what `read` returns."""
        file.write(json.dumps(payload).encode())

    def read(self, file: BinaryIO) -> dict[str, Any]:
        """All fields of a file."""
        payload: dict[str, Any] = json.load(file)
        return payload

    def digest(self, model: Mapping[str, Any]) -> str:
        """SHA-256 of the model's only parameter."""
        return hashlib.sha256(model["weights"].encode()).hexdigest()


def run(setup: RankSetup, pipe: Connection, life: Life, means: Means) -> int:
    """One rank from its start to its exit code; its last message goes through the pipe."""
    mail = _SlowMailbox(pipe, life)
    try:
        rank = _Rank(setup, mail, life, means)
        try:
            kind = rank.run()
        finally:
            rank.close()
        reason, message = ORDERLY[kind], ""
    except Exception as error:
        life.check()
        kind, reason, message = explained(error, setup.rank)
    mail.end(kind, reason, message)
    return 0 if kind in ORDERLY else 1


def explained(error: Exception, rank: int) -> tuple[EndKind, Reason, str]:
    """As `dtjob_trainer.rank.failures` judges, of what can happen without torch."""
    match error:
        case TaskError():
            return EndKind.FAILED, error.reason, error.message
        case RankLost():
            return EndKind.CRASHED, Reason.RANK_FAILED, failures.lost(rank)
        case MemoryError():
            message = f"rank {rank} ran out of memory: {type(error).__name__}"
            return EndKind.CRASHED, Reason.RANK_FAILED, message
    crashed = EndKind.CRASHED, Reason.RANK_FAILED, f"{type(error).__name__}: {error}"
    return failures.of_the_record(error) or crashed


class _SlowMailbox(Mailbox):
    """Receives the order to drain late."""

    def __init__(self, pipe: Connection, life: Life) -> None:
        super().__init__(pipe)
        self._life = life
        self.drain_seconds = 0.0

    def drain_ordered(self) -> bool:
        ordered = super().drain_ordered()
        if ordered:
            self._life.sleep(self.drain_seconds)
        return ordered


class _Rank:
    def __init__(self, setup: RankSetup, mail: _SlowMailbox, life: Life, means: Means) -> None:
        self._setup, self._mail, self._life, self._means = setup, mail, life, means
        self._config = WorkerConfig.model_validate_json(setup.config)
        self._meeting: Meeting | None = None
        self._at = 0

    def close(self) -> None:
        if self._meeting is not None:
            self._meeting.close()

    def run(self) -> EndKind:
        """As `dtjob_trainer.rank.rank`, from the task to the loop."""
        config, setup = self._config, self._setup
        self._mail.stage("importing the task")
        _require_script(config.training.entrypoint)
        load_task(config.training.entrypoint, config.training.args)
        self._script = Script.of(config.training.args)
        self._mail.drain_seconds = self._script.drain_seconds
        self._means.garble(False)
        self._meet_faults(None)
        leased, spec = None, None
        if setup.rank == 0:
            self._mail.stage("reading ledger and checkpoint")
            ledger = MortalLedger(self._means.ledgers(config.ledger), self._life)
            leased, spec, checkpoint = leasing.resumed(ledger, config, setup.attempt, JsonFormat())
            self._at = checkpoint.step if checkpoint else 0
        self._mail.stage("waiting for the other ranks")
        place = "127.0.0.1", setup.store_port
        self._meeting = Meeting(place, setup.attempt, setup.rank, setup.world_size, self._life)
        if leased is None or spec is None:
            (self._at,) = self._meeting.broadcast_ints([0])
            return loop.Follower(self._trainee, self._meeting, self._mail).run()
        self._meeting.broadcast_ints([self._at])
        return self._coordinate(leased, spec)

    def _coordinate(self, leased: LeasedDraws, spec: LedgerSpec) -> EndKind:
        evaluation, first = self._config.training.evaluation, self._state()
        assert self._meeting is not None
        with self._mail.waiting("writing checkpoint and ledger", state=WorkerState.STARTING):
            leased.open(first, expected_bytes(first), Provenance(image=self._config.job.image))
        every = evaluation.every_steps if evaluation else None
        course = loop.Course(spec.plan, self._at, every)
        return loop.RankZero(self._trainee, course, leased, self._meeting, self._mail).run()

    @property
    def _trainee(self) -> loop.Trainee:
        figures = self._script.evaluation
        evaluate = (lambda: dict(figures)) if figures else None
        return loop.Trainee(_Step(self), self._state, self._digest, evaluate)

    def step(self, draw: int, step: int) -> None:
        """One step: all ranks wait for one another, as they do for their sums."""
        self._meet_faults(step)
        if self._setup.rank == 0:
            line = {"attempt": self._setup.attempt, "draw": draw, "step": step}
            with (Path(self._config.state_dir) / DRAWS).open("a") as file:
                file.write(json.dumps(line) + "\n")
        self._life.sleep(self._script.seconds_per_step)
        assert self._meeting is not None
        self._meeting.sync()
        self._at = step + 1

    def _state(self) -> TrainingState:
        weights: Any = {"weights": Weights(f"{self._config.job.uid} after {self._at} steps")}
        return TrainingState(weights, {})

    def _digest(self) -> str:
        return JsonFormat().digest(self._state().model)

    def _meet_faults(self, step: int | None) -> None:
        for fault in self._script.at(self._setup.rank, self._setup.attempt, step):
            self._suffer(fault)

    def _suffer(self, fault: Fault) -> None:
        match fault.do:
            case Deed.SIGNAL:
                raise Exit(-fault.number)
            case Deed.EXIT:
                raise Exit(fault.number)
            case Deed.HANG:
                self._life.sleep(None)
            case Deed.HOLD:
                while not self._mail.drain_ordered():
                    self._life.sleep(_LOOK_SECONDS)
            case Deed.MEMORY:
                raise MemoryError
            case Deed.RAISE:
                raise RuntimeError(fault.message)
            case Deed.FAIL:
                raise TaskError(fault.reason, fault.message)
            case Deed.REFUSE:
                raise TrainingHeld(fault.reason, fault.message)
            case Deed.LEAVE:
                self._means.leave(fault.number)
                self._life.sleep(None)
            case Deed.GARBLE:
                self._means.garble(True)
            case Deed.LOSE_VOLUME:
                _empty(Path(self._config.state_dir))
                raise Exit(-9)


def _require_script(entrypoint: str) -> None:
    """Refuse the trainer's own tasks, which import torch; a missing one is reported as always."""
    if entrypoint.startswith("dtjob_trainer."):
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r}: this is a stand-in, which trains nothing; "
            f"its entrypoint is {ENTRYPOINT}",
        )


class _Step:
    def __init__(self, rank: _Rank) -> None:
        self._rank = rank

    def run(self, draw: int, step: int) -> None:
        self._rank.step(draw, step)


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
