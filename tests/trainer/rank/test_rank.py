"""What the end of a rank reveals, and to whom (Rule 20)."""

from __future__ import annotations

import errno
import importlib
import io
import multiprocessing
import os
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from structlog.testing import capture_logs

from dtjob_api.job.distributed_training_job import Telemetry
from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.pipe import RankEnd
from dtjob_trainer.ledger.backend import LedgerError, Superseded
from dtjob_trainer.ledger.durable import VolumeFull, VolumeUnusable
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.mechanism import keys
from dtjob_trainer.mechanism.group import CollectiveFailed, Group, ParametersDiverged
from dtjob_trainer.mechanism.optim import make_optimizer
from dtjob_trainer.mechanism.records.opening import open_records
from dtjob_trainer.mechanism.step import Learner, PrivateStep
from dtjob_trainer.mechanism.watch.structure import chosen
from dtjob_trainer.mechanism.watch.untouched import Untouched
from dtjob_trainer.process import confine, logs, streams
from dtjob_trainer.rank.failures import Phase
from dtjob_trainer.rank.mailbox import Mailbox, shortened
from dtjob_trainer.rank.rank import (
    _Attempt,
    _NotifyingStep,
    _prepare_device,
    _Rank,
    main,
)
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.task import Task, TaskError
from tests.support.gangs.gang_run import GangRun
from tests.support.mechanism.models import (
    KEYS,
    Plan,
    Records,
    linear,
    make_step,
    make_task,
    mechanism_of,
    rows,
)


def rank(folder: Path, telemetry: Telemetry = Telemetry.COVERED_BY_EPSILON) -> _Rank:
    """Rank 1, which has private records in memory."""
    config = GangRun(folder).config(0).model_copy(update={"telemetry": telemetry})
    setup = RankSetup(config.model_dump_json(by_alias=True), 1, 1, 0, 2, 1, 0)
    made = _Rank(setup, Mailbox(multiprocessing.Pipe()[0]), structlog.get_logger())
    made._phase = Phase.PRIVATE
    return made


@pytest.mark.rule(6)
def test_diverged_replicas_end_the_job_and_say_so(tmp_path: Path) -> None:
    """Another attempt would go on from steps that a rank computed wrong."""
    difference = "rank 1 and ranks [0] hold different parameters"
    kind, reason, message = rank(tmp_path).explain(ParametersDiverged(difference))
    assert (kind, reason, message) == (EndKind.FAILED, Reason.REPLICAS_DIVERGED, difference)


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


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. " * 99), no_memory_left_to_torch()],
    ids=["python", "GPU", "CPU"],
)
def test_want_of_memory_is_reported_with_what_needs_less(
    tmp_path: Path, phase: Phase, error: Exception
) -> None:
    """Retried as ever, but whoever reads it need not know torch's allocators."""
    hungry = rank(tmp_path)
    hungry._phase = phase
    kind, reason, message = hungry.explain(error)
    assert (kind, reason) == (EndKind.CRASHED, Reason.RANK_FAILED)
    for words in (
        "rank 1 ran out of memory",
        "spec.training.physicalBatchSize",
        "a smaller model",
        "fewer processes in a worker",
        "spec.workers.resources.limits.memory",
        "ulimit -v",
    ):
        assert words in shortened(message)


def raised_by_a_task(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> Exception:
    """What task code raises, by its module `reading`."""
    (folder / "reading.py").write_text(f"def read():\n    {line}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "reading", raising=False)
    try:
        importlib.import_module("reading").read()
    except Exception as error:
        return error
    raise AssertionError(line)


@pytest.mark.parametrize(
    "line",
    [
        "open('/JANE DOE')",
        "raise NotADirectoryError('JANE DOE')",
        "import jane_doe.records",
        "raise RuntimeError('JANE DOE') from FileNotFoundError('JANE DOE')",
    ],
)
def test_what_is_not_there_ends_no_job_that_has_stepped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """A mount that comes back must not cost the model; the reserve bounds how often it is tried."""
    tried = rank(tmp_path)
    tried._failures = replace(tried._failures, entrypoint="reading:task")
    error = raised_by_a_task(tmp_path, monkeypatch, line)
    tried._begin_stepped()
    kind, reason, message = tried.explain(error)
    assert (kind, reason) == (EndKind.CRASHED, Reason.RANK_FAILED)
    assert "reading.py:2" in message
    assert "jane" not in message.lower()


def test_what_is_not_there_at_the_first_step_is_the_tasks_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another start would spend a lease to find the same again."""
    tried = rank(tmp_path)
    tried._failures = replace(tried._failures, entrypoint="reading:task")
    error = raised_by_a_task(tmp_path, monkeypatch, "open('/JANE DOE')")
    kind, reason, message = tried.explain(error)
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "is the data where the task looks for it" in message


@pytest.mark.parametrize("phase", [Phase.OPENING, Phase.PRIVATE])
def test_task_that_looks_for_data_which_the_job_does_not_have_is_reported_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    monkeypatch.delenv("DTJOB_DATA_DIR", raising=False)
    tried = rank(tmp_path)
    tried._failures = replace(tried._failures, entrypoint="reading:task")
    tried._phase = phase
    line = "import os; os.environ['DTJOB_DATA_DIR']"
    kind, reason, message = tried.explain(raised_by_a_task(tmp_path, monkeypatch, line))
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "this worker has no DTJOB_DATA_DIR" in message
    assert "spec.storage.data" in message
    assert "--data" in message


@pytest.mark.rule(20)
@pytest.mark.parametrize(
    "line",
    [
        "import os; os.environ['JANE_DOE']",
        "import os; {'DTJOB_DATA_DIR': os}['JANE_DOE']",
        "raise KeyError('DTJOB_DATA_DIR')",
        "raise KeyError('DTJOB_DATA_DIR', 'JANE_DOE')",
    ],
)
def test_no_other_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.delenv("DTJOB_DATA_DIR", raising=False)
    message = rank(tmp_path).explain(raised_by_a_task(tmp_path, monkeypatch, line))[2]
    assert "its message is not shown" in message
    assert "JANE_DOE" not in message
    assert "DTJOB_DATA_DIR" not in message


def test_what_fails_before_the_data_are_open_is_not_called_training(tmp_path: Path) -> None:
    # One that keeps its output: the tests have theirs from the same descriptors.
    tried = rank(tmp_path, Telemetry.NOT_COVERED_BY_EPSILON)
    assert tried.explain(ValueError("JANE DOE"))[2].startswith("training raised ValueError")
    tried._begin_private()
    message = tried.explain(ValueError("JANE DOE"))[2]
    assert message.startswith("opening the data raised ValueError")
    assert "JANE DOE" not in message


def test_other_failures_of_the_task_are_final_after_a_step_too(tmp_path: Path) -> None:
    tried = rank(tmp_path)
    tried._begin_stepped()
    assert tried.explain(ValueError("JANE DOE"))[:2] == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in tried.explain(SystemExit("JANE DOE"))[2]
    for records in ([], [("JANE DOE", 0)]):
        task = make_task(records=records)
        with pytest.raises(TaskError) as ours:
            open_records(task, Untouched(linear()), torch.device("cpu"))
        assert tried.explain(ours.value)[:2] == (EndKind.FAILED, Reason.DATASET_INVALID)
        assert tried.explain(ours.value)[2] == ours.value.message


@pytest.mark.parametrize(("step", "order"), [(0, ["begun", "stepped"]), (7, ["stepped", "begun"])])
def test_job_has_stepped_once_its_first_step_is_done(step: int, order: list[str]) -> None:
    """A resumed one has before its own first step."""
    seen: list[str] = []

    class Step:
        def run(self, draw: int, step: int) -> None:  # noqa: ARG002
            seen.append("begun")

    _NotifyingStep(Step(), lambda: seen.append("stepped")).run(3, step)
    assert seen[:2] == order


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


@pytest.mark.parametrize("phase", Phase)
def test_lost_peer_is_another_attempts_matter(tmp_path: Path, phase: Phase) -> None:
    """Wherever the module lies that raised it; a failure for good would end the job."""
    tried = rank(tmp_path)
    tried._phase = phase
    kind, reason, message = tried.explain(CollectiveFailed("RuntimeError: JANE DOE has gone"))
    assert (kind, reason) == (EndKind.CRASHED, Reason.RANK_FAILED)
    assert message.startswith("rank 1 lost another rank, or the way to it")
    assert ("JANE DOE" in message) != phase.hides


def test_label_that_a_gpu_refuses_is_final(tmp_path: Path) -> None:
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    assert rank(tmp_path).explain(error)[0] is EndKind.FAILED


@pytest.mark.parametrize("phase", Phase)
def test_volume_that_lets_nobody_write_is_a_matter_for_a_person(
    tmp_path: Path, phase: Phase
) -> None:
    """Tried again it would use up all restarts, and end the job for a mount option."""
    tried = rank(tmp_path)
    tried._phase = phase
    refused = VolumeUnusable(tmp_path / "attempt-1" / "journal", errno.EROFS)
    kind, reason, message = tried.explain(refused)
    assert (kind, reason) == (EndKind.HELD, Reason.STORAGE_UNUSABLE)
    assert reason in TRAINING_HELD
    assert "Read-only file system" in message
    assert "the job can go on" in message


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


@pytest.mark.parametrize("phase", Phase)
def test_an_interrupt_is_somebodys_signal_and_no_verdict(tmp_path: Path, phase: Phase) -> None:
    """A failure would end the job for good, with draws paid."""
    tried = rank(tmp_path)
    tried._phase = phase
    kind, reason, message = tried.explain(KeyboardInterrupt())
    assert (kind, reason) == (EndKind.CRASHED, Reason.RANK_FAILED)
    assert "was interrupted: KeyboardInterrupt" in message


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (Superseded("attempt 2 has begun"), EndKind.SUPERSEDED, Reason.SUPERSEDED),
        (LedgerError("no such ledger"), EndKind.HELD, Reason.LEDGER_UNREADABLE),
        (VolumeFull(Path("journal"), 9, 0, "no space"), EndKind.HELD, Reason.STORAGE_FULL),
        (TrainingHeld(Reason.CHECKPOINT_LOST, "gone"), EndKind.HELD, Reason.CHECKPOINT_LOST),
    ],
    ids=lambda it: type(it).__name__,
)
def test_a_record_that_lets_no_rank_go_on_is_no_fault_of_the_task(
    tmp_path: Path, error: BaseException, kind: EndKind, reason: Reason
) -> None:
    assert rank(tmp_path).explain(error)[:2] == (kind, reason)


def test_an_error_of_our_own_before_the_task_is_tried_again(tmp_path: Path) -> None:
    ours = rank(tmp_path)
    ours._phase = Phase.OURS
    found = ours.explain(RuntimeError("a bug"))
    assert found == (EndKind.CRASHED, Reason.RANK_FAILED, "RuntimeError: a bug")


CONFINED = (
    "end_with_parent",
    "forbid_core_dumps",
    "leave_stops_to_supervisor",
    "let_forks_be_terminated",
)


def end_of_main(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., EndKind]
) -> RankEnd:
    """What a rank process says last."""

    class Exited(BaseException):
        pass

    def leave(code: int) -> None:
        raise Exited(code)

    for name in CONFINED:
        monkeypatch.setattr(confine, name, lambda *_: None)
    monkeypatch.setattr(confine, "keep_own_log", io.StringIO)
    monkeypatch.setattr(logs, "quieten_libraries", lambda: None)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(_Rank, "run", run)
    ours, theirs = multiprocessing.Pipe()
    with pytest.raises(Exited):
        main(rank(folder)._setup, theirs)
    end = ours.recv()
    assert isinstance(end, RankEnd)
    return end


def test_rank_main_hears_of_sys_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = end_of_main(tmp_path, monkeypatch, lambda *_: sys.exit("enough"))
    assert end.reason == "TaskFailed"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (EndKind.FINISHED, Reason.FINISHED),
        (EndKind.DRAINED, Reason.STOPPED),
        (EndKind.SUCCEEDED, Reason.COMPLETED),
    ],
)
def test_an_end_in_order_has_a_reason_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: EndKind, reason: Reason
) -> None:
    end = end_of_main(tmp_path, monkeypatch, lambda *_: kind)
    assert (end.kind, end.reason, end.message) == (kind, reason, "")


def test_evaluation_that_calls_sys_exit_costs_its_figures_only(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="SystemExit"):
        rank(tmp_path)._evaluated(make_task(evaluate=lambda _model: sys.exit(1)), linear())


@pytest.mark.rule(2)
def test_ranks_of_one_forkserver_have_random_numbers_of_their_own(tmp_path: Path) -> None:
    """Equal ones would drop the same units, and flip the same images, on all and each time."""
    begun = rank(tmp_path)

    def born() -> tuple[float, ...]:
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        _prepare_device(begun._config, replace(begun._setup, threads=torch.get_num_threads()))
        return torch.rand(()).item(), random.random(), np.random.random()

    assert not set(born()) & set(born())


@pytest.mark.rule(20)
def test_other_errors_are_hidden(tmp_path: Path) -> None:
    kind, reason, message = rank(tmp_path).explain(ValueError("JANE DOE"))
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message
    assert "ValueError" in message


@pytest.mark.rule(20)
@pytest.mark.parametrize("error", [KeyError, TaskError])
@pytest.mark.parametrize("telemetry", Telemetry)
def test_failed_evaluation_tells_class_and_place(
    tmp_path: Path, telemetry: Telemetry, error: type[Exception]
) -> None:
    """Its data are public, but the process holds private records too."""

    def evaluate(_model: Any) -> Any:
        raise error(Reason.EVALUATION_INVALID, "JANE DOE")

    tried = rank(tmp_path, telemetry)
    with capture_logs() as logged, pytest.raises(TaskError) as caught:
        tried._evaluated(make_task(evaluate=evaluate), linear())
    assert caught.value.reason is Reason.EVALUATION_INVALID
    assert error.__name__ in caught.value.message
    assert "JANE DOE" not in caught.value.message
    assert caught.value.__context__ is None
    assert ("JANE DOE" in str(logged)) == (telemetry is Telemetry.NOT_COVERED_BY_EPSILON)


def test_who_opts_out_of_rule_20_finds_the_error_in_the_log_and_in_no_status(
    tmp_path: Path,
) -> None:
    tried = rank(tmp_path, Telemetry.NOT_COVERED_BY_EPSILON)
    error = ValueError("JANE DOE")
    _, _, message = tried.explain(error)
    assert "JANE DOE" not in message
    assert "in the worker's log alone" in message
    assert "JANE DOE" in tried.logged(error)["traceback"]
    assert rank(tmp_path).logged(error) == {}


@pytest.mark.rule(20)
def test_our_own_error_raised_by_task_code_is_hidden_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "borrowing.py"
    module.write_text(
        "from dtjob_api.reasons import Reason\n"
        "from dtjob_trainer.task import TaskError\n"
        "def read():\n"
        "    raise TaskError(Reason.DATASET_INVALID, 'JANE DOE')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tried = rank(tmp_path)
    tried._failures = replace(tried._failures, entrypoint="borrowing:task")
    with pytest.raises(TaskError) as caught:
        importlib.import_module("borrowing").read()
    kind, reason, message = tried.explain(caught.value)
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message
    assert "borrowing.py:4" in message


@pytest.mark.rule(20)
def test_what_is_refused_while_it_trains_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File and line of the task, the module and what it asks, and no value."""
    (tmp_path / "asking.py").write_text(
        "def losses(model, batch):\n    return model(batch['x'])[:, 0] * batch['x'].max().item()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = make_task(losses=importlib.import_module("asking").losses)
    step = make_step(task, task.model(), Plan(), task.dataset())
    with pytest.raises(TaskError) as caught:
        step.run(next(draw for draw in range(400) if chosen(KEYS.looks, draw)), 0)
    tried = rank(tmp_path)
    tried._failures = replace(tried._failures, entrypoint="asking:task")
    kind, reason, message = tried.explain(caught.value)
    assert (kind, reason) == (EndKind.FAILED, Reason.MODEL_REFUSED)
    assert message.startswith("losses() asks for values of the batch: item() reads them")
    assert message.endswith(f"(at {tmp_path.name}/asking.py:2)")


@pytest.mark.rule(20)
def test_our_own_error_raised_by_a_library_is_hidden_too(tmp_path: Path) -> None:
    kind, reason, message = rank(tmp_path).explain(TaskError(Reason.DATASET_INVALID, "JANE DOE"))
    assert (kind, reason) == (EndKind.FAILED, Reason.TASK_FAILED)
    assert "JANE DOE" not in message


@pytest.mark.parametrize("seen", [0, 1])
def test_a_worker_without_its_gpus_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    """Another node may have them, so that no job is failed by it."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: seen)
    config = GangRun(tmp_path).config(0).model_copy(update={"gpus_per_worker": 2})
    setup = RankSetup(
        config.model_dump_json(by_alias=True), 1, 1, seen, 2, torch.get_num_threads(), 0
    )
    with pytest.raises(TrainingHeld, match=f"this worker sees {seen} GPUs") as caught:
        _prepare_device(config, setup)
    assert caught.value.reason is Reason.GPU_MISSING


@pytest.mark.rule(2)
def test_a_rank_confines_itself_before_it_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    begun: list[str] = []
    for name in CONFINED:
        monkeypatch.setattr(confine, name, lambda *_, name=name: begun.append(name))
    monkeypatch.setattr(streams, "take_standard_streams", stop)
    with pytest.raises(Stop):
        main(rank(tmp_path)._setup, multiprocessing.Pipe()[1])
    assert begun == list(CONFINED)


def private_step(begun: _Rank, task: Task, uid: str) -> PrivateStep:
    """The step of a rank, on the task's records."""
    plan, model = Plan(), task.model()
    learner = Learner(model, task.losses, make_optimizer("sgd", model.parameters()), lambda _: 0.5)
    spec: Any = SimpleNamespace(plan=plan, job_uid=uid)
    attempt = _Attempt(task, Group(), spec, mechanism_of(plan), 8, None, None, None)
    heard, pipe = multiprocessing.Pipe()
    begun._mail = Mailbox(pipe)
    with heard:
        return begun._private_step(attempt, learner)


@pytest.mark.rule(2)
def test_keys_come_from_a_fresh_secret_by_the_numbers_of_job_and_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confine, "drop_task_output", lambda: None)
    secrets = [bytes([number]) * 32 for number in (1, 2)]
    given = iter(secrets)
    monkeypatch.setattr(keys, "fresh_secret", lambda _group: next(given))
    for attempt, secret in zip((1, 7), secrets, strict=True):
        begun = rank(tmp_path)
        begun._setup = replace(begun._setup, attempt=attempt)
        found = private_step(begun, make_task(), "uid-1")._keys
        assert found == keys.derive_keys(secret, "uid-1", attempt)


@pytest.mark.rule(20)
def test_the_private_phase_begins_before_the_data_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = rank(tmp_path)
    begun._phase = Phase.OURS
    seen: list[object] = []
    monkeypatch.setattr(confine, "drop_task_output", lambda: seen.append("dropped"))

    def dataset() -> Records:
        seen.append(begun._phase)
        return Records(rows())

    private_step(begun, replace(make_task(), dataset=dataset), "uid-1")
    assert seen == ["dropped", Phase.OPENING]
    assert begun._phase is Phase.PRIVATE
