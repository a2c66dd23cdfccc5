"""What the end of a rank tells, and to whom (Rule 20)."""

from __future__ import annotations

import importlib
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import structlog
from gang import GangRun
from models import linear, make_task

from dtjob_api.job import Telemetry
from dtjob_api.reasons import Reason
from dtjob_trainer.distributed import ParametersDiverged
from dtjob_trainer.gang import EndKind
from dtjob_trainer.loop import EpsilonUnknown
from dtjob_trainer.mailbox import Mailbox
from dtjob_trainer.processes import RankSetup
from dtjob_trainer.rank import _Rank
from dtjob_trainer.task import TaskError


def rank(folder: Path, telemetry: Telemetry = Telemetry.COVERED_BY_EPSILON) -> _Rank:
    """Rank 1, which has private records in memory."""
    config = GangRun(folder).config(0).model_copy(update={"telemetry": telemetry})
    setup = RankSetup(config.model_dump_json(by_alias=True), 1, 1, 0, 2, 1)
    made = _Rank(setup, Mailbox(multiprocessing.Pipe()[0]), structlog.get_logger())
    made._private = True
    return made


def test_rule_6_diverged_replicas_end_the_job_and_say_so(tmp_path: Path) -> None:
    """Another attempt would go on from steps that a rank computed wrong."""
    said = "rank 1 and ranks [0] hold different parameters"
    kind, reason, message = rank(tmp_path).explain(ParametersDiverged(said))
    assert (kind, reason, message) == (EndKind.FAILED, Reason.REPLICAS_DIVERGED, said)


def test_epsilon_that_is_late_is_waited_for_by_another_attempt(tmp_path: Path) -> None:
    kind, reason, message = rank(tmp_path).explain(EpsilonUnknown("no answer within 120 s"))
    assert (kind, reason) == (EndKind.CRASHED, Reason.RANK_FAILED)
    assert message == "no answer within 120 s"


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
    config = tried._config
    training = config.training.model_copy(update={"entrypoint": "borrowing:task"})
    tried._config = config.model_copy(update={"training": training})
    with pytest.raises(TaskError) as caught:
        importlib.import_module("borrowing").read()
    kind, reason, message = tried.explain(caught.value)
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message
    assert "borrowing.py:3" in message
