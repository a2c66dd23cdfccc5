"""What the end of a rank tells, and to whom (Rule 20)."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from gang import GangRun
from models import linear, make_task

from dtjob_api.job import Telemetry
from dtjob_api.reasons import Reason
from dtjob_trainer import confine, logs
from dtjob_trainer.distributed import ParametersDiverged
from dtjob_trainer.failures import Phase
from dtjob_trainer.gang import EndKind
from dtjob_trainer.mailbox import Mailbox
from dtjob_trainer.processes import RankSetup
from dtjob_trainer.rank import _Rank, _take_own_randomness, main
from dtjob_trainer.task import TaskError


def rank(folder: Path, telemetry: Telemetry = Telemetry.COVERED_BY_EPSILON) -> _Rank:
    """Rank 1, which has private records in memory."""
    config = GangRun(folder).config(0).model_copy(update={"telemetry": telemetry})
    setup = RankSetup(config.model_dump_json(by_alias=True), 1, 1, 0, 2, 1, 0)
    made = _Rank(setup, Mailbox(multiprocessing.Pipe()[0]), structlog.get_logger())
    made._phase = Phase.PRIVATE
    return made


def test_rule_6_diverged_replicas_end_the_job_and_say_so(tmp_path: Path) -> None:
    """Another attempt would go on from steps that a rank computed wrong."""
    said = "rank 1 and ranks [0] hold different parameters"
    kind, reason, message = rank(tmp_path).explain(ParametersDiverged(said))
    assert (kind, reason, message) == (EndKind.FAILED, Reason.REPLICAS_DIVERGED, said)


def no_memory_left_to_torch() -> RuntimeError:
    try:
        torch.empty(10**15)
    except RuntimeError as error:
        return error
    raise AssertionError("a petabyte of memory")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("JANE DOE"),
        torch.OutOfMemoryError("CUDA out of memory: JANE DOE"),
        no_memory_left_to_torch(),
        torch.AcceleratorError("CUDA error: unspecified launch failure, JANE DOE"),
    ],
    ids=["python", "GPU", "CPU", "driver"],
)
def test_want_of_memory_and_a_failing_gpu_pass(tmp_path: Path, error: Exception) -> None:
    """Another attempt may find more memory, or another node."""
    kind, reason, message = rank(tmp_path).explain(error)
    assert (kind, reason) == (EndKind.CRASHED, Reason.RANK_FAILED)
    assert "JANE DOE" not in message
    assert type(error).__name__ in message


@pytest.mark.parametrize(
    ("charged", "expected"),
    [
        (False, (EndKind.CRASHED, Reason.RANK_FAILED)),
        (True, (EndKind.FAILED, Reason.DRY_RUN_FAILED)),
    ],
)
def test_an_error_that_nobody_knows_is_tried_again_only_before_a_charge(
    tmp_path: Path, *, charged: bool, expected: tuple[EndKind, Reason]
) -> None:
    """Each try counts as a restart, and one too many ends the job; a held one loses nothing."""
    tried = rank(tmp_path)
    tried._phase = Phase.TRIED
    tried._failures = replace(tried._failures, charged=charged)
    unknown = type("Error", (Exception,), {"__module__": "nobody.knows"})
    assert tried.explain(unknown("no"))[:2] == expected
    assert tried.explain(ConnectionError("no"))[0] is EndKind.CRASHED


def test_label_that_a_gpu_refuses_is_final(tmp_path: Path) -> None:
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    assert rank(tmp_path).explain(error)[0] is EndKind.FAILED


def test_task_that_ends_its_process_is_not_started_again(tmp_path: Path) -> None:
    """Each start would spend a lease; and before any private read the place is shown."""
    tried = rank(tmp_path)
    kind, reason, message = tried.explain(SystemExit("JANE DOE"))
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message
    assert "SystemExit" in message
    tried._phase = Phase.TRIED
    kind, reason, message = tried.explain(SystemExit("no licence"))
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "no licence" in message
    assert "sys.exit" in message


def test_rank_main_hears_of_sys_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exited(BaseException):
        pass

    def leave(code: int) -> None:
        raise Exited(code)

    def run(*_: Any) -> None:
        sys.exit("enough")

    for name in ("end_with_parent", "forbid_core_dumps"):
        monkeypatch.setattr(confine, name, lambda *_: None)
    monkeypatch.setattr(confine, "keep_own_log", io.StringIO)
    monkeypatch.setattr(logs, "quieten_libraries", lambda: None)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(_Rank, "run", run)
    ours, theirs = multiprocessing.Pipe()
    with pytest.raises(Exited):
        main(rank(tmp_path)._setup, theirs)
    assert ours.recv()["end"]["reason"] == "TaskFailed"


def test_evaluation_that_calls_sys_exit_costs_its_figures_only(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="SystemExit"):
        rank(tmp_path)._evaluated(make_task(evaluate=lambda _model: sys.exit(1)), linear())


def test_ranks_of_one_forkserver_have_random_numbers_of_their_own() -> None:
    """Equal ones would drop the same units, and flip the same images, on all and each time."""

    def born() -> tuple[float, ...]:
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        _take_own_randomness()
        return torch.rand(()).item(), random.random(), np.random.random()

    assert not set(born()) & set(born())


def test_rule_20_other_errors_are_hidden(tmp_path: Path) -> None:
    kind, reason, message = rank(tmp_path).explain(ValueError("JANE DOE"))
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message
    assert "ValueError" in message


@pytest.mark.parametrize("telemetry", Telemetry)
def test_rule_20_failed_evaluation_tells_class_and_place(
    tmp_path: Path, telemetry: Telemetry
) -> None:
    """Its data are public, but the process holds private records too."""

    def evaluate(_model: Any) -> Any:
        raise KeyError("JANE DOE")

    with pytest.raises(TaskError) as caught:
        rank(tmp_path, telemetry)._evaluated(make_task(evaluate=evaluate), linear())
    assert caught.value.reason == "EvaluationInvalid"
    assert "KeyError" in caught.value.message
    shown = telemetry is Telemetry.NOT_COVERED_BY_EPSILON
    assert ("JANE DOE" in caught.value.message) == shown
    assert caught.value.__context__ is None


def test_rule_20_our_own_error_raised_by_task_code_is_hidden_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "borrowing.py"
    module.write_text(
        "from dtjob_trainer.task import TaskError\n"
        "def read():\n"
        "    raise TaskError('DatasetInvalid', 'JANE DOE')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tried = rank(tmp_path)
    tried._failures = replace(tried._failures, entrypoint="borrowing:task")
    with pytest.raises(TaskError) as caught:
        importlib.import_module("borrowing").read()
    kind, reason, message = tried.explain(caught.value)
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message
    assert "borrowing.py:3" in message
