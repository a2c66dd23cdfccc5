"""A task that a run has tried whole is not tried whole again, and any other is."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from dtjob_api.wire.gang import EndKind
from dtjob_operator.read.coordinator_report import _STAGE
from dtjob_trainer.gang.attempts import begin_attempt
from dtjob_trainer.ledger.checkpoint import TrainingState
from dtjob_trainer.preflight import rehearsal, task_validation
from dtjob_trainer.rank import rank
from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.usercode import library_first, sources
from tests.support.builders import START
from tests.support.gangs.gang_run import GangRun

pytestmark = pytest.mark.slow

DIGITS = {"entrypoint": "dtjob_trainer.tasks.digits:task", "args": {}}


class Attempts:
    """Attempts of a rank 0 that is alone; none trains.

    Attributes
    ----------
    whole
        Of each dry run, whether it was to be whole.
    stages
        What was said to be done, in all attempts.
    leases
        Whether an attempt takes its first lease.
    """

    def __init__(self, folder: Path, runs: list[GangRun], monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = GangRun(folder, workers=1, task=DIGITS)
        runs.append(self.run)
        self.run.create_ledger()
        self.whole: list[bool] = []
        self.stages: list[str] = []
        self.leases = True
        monkeypatch.setattr(rehearsal, "rehearse", lambda *_, **__: None)
        monkeypatch.setattr(task_validation, "check_evaluation", lambda *_: None)
        monkeypatch.setattr(task_validation, "preflight", self._preflight)
        monkeypatch.setattr(rank._Rank, "_train", self._train)
        # What is done to a process of its own.
        monkeypatch.setattr(library_first, "admit_working_folder", lambda: None)
        monkeypatch.setattr(rank, "_prepare_device", lambda *_: torch.device("cpu"))

    def _preflight(self, *_: Any, whole: bool, announce: Callable[[str], None]) -> None:
        self.whole.append(whole)
        announce(f"whole {whole}")

    def _train(self, attempt: Any, _watch: Any) -> EndKind:
        if self.leases:
            attempt.leased.open(TrainingState({"w": torch.ones(1)}, {}), 4096, attempt.provenance)
        return EndKind.DRAINED

    def go(self) -> None:
        number = begin_attempt(self.run.ledger, START).ledger.status.attempt
        config = self.run.config(0).model_dump_json(by_alias=True)
        setup = RankSetup(config, number, 0, 0, 1, 1, 0)
        ours, theirs = multiprocessing.Pipe()
        made = rank._Rank(setup, Mailbox(ours), structlog.get_logger())
        assert made.run(None) is EndKind.DRAINED
        while theirs.poll():
            self.stages.append(theirs.recv().stage)


@pytest.mark.rule(21)
def test_a_task_is_tried_whole_until_draws_are_leased_for_it(
    tmp_path: Path, runs: list[GangRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By sources that nobody can read, always."""
    attempts = Attempts(tmp_path, runs, monkeypatch)
    attempts.leases = False
    attempts.go()
    attempts.leases = True
    attempts.go()
    attempts.go()
    assert attempts.whole == [True, True, False]
    announced = [stage for stage in attempts.stages if ": whole " in stage]
    assert announced == [f"dry run on synthetic data: whole {whole}" for whole in attempts.whole]
    assert all(_STAGE.fullmatch(stage) for stage in attempts.stages)

    for digest in ("edited", "edited", None, None):
        monkeypatch.setattr(sources, "digest", lambda *_, digest=digest: digest)
        attempts.go()
    assert attempts.whole[3:] == [True, False, True, True]
    assert [s.draws for s in attempts.run.ledger.read().ledger.status.segments] == [10, 10, 10]
