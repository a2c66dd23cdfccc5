"""One message for each way in which a run can end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.runs import held, local_workers, verdict
from dtjob_cli.runs.run_directory import RunDirectory

RUN = RunDirectory(Path("dtjob-runs/digits-0a1b2c3d"))
RESUME = f"dtjob run digits.yaml --resume {RUN.path}"


def _resume(reason: str) -> str:
    return f"{RESUME} --data PATH" if reason == "TaskFailed" else f"{RESUME} --data d"


def _report(state: str = "Unfinished", **more: Any) -> dict[str, Any]:
    plan = {"steps": 336, "reservedDraws": 366}
    spent = {"draws": 20, "epsilon": 1.7606}
    return {"state": state, "step": 11, "plan": plan, "spent": spent} | more


def _end(code: int, *, reason: str = "", message: str = "", position: int = 0) -> local_workers.End:
    return local_workers.End(position, code, reason, message, restarted=False)


def _error(
    report: dict[str, Any] | None, *ends: local_workers.End, interrupted: bool = False
) -> CommandError:
    with pytest.raises(CommandError) as caught:
        verdict.check(report, ends, interrupted=interrupted, run=RUN, resume_command=_resume)
    return caught.value


def test_success_is_no_error_even_if_the_user_wanted_to_stop() -> None:
    verdict.check(
        _report("Succeeded"), [_end(0)], interrupted=True, run=RUN, resume_command=_resume
    )


def test_a_run_that_ended_early_is_no_error_and_says_so() -> None:
    said = "11 of 336 steps done, 366 draws charged"
    report = _report("Succeeded", reason="PrivacyBudgetExhausted", message=said)

    verdict.check(report, [_end(0)], interrupted=False, run=RUN, resume_command=_resume)

    assert said in str(verdict.ended_early(report))
    completed = _report("Succeeded", reason="Completed", message="336 of 336 steps done")
    assert verdict.ended_early(completed) is None


def test_the_outcome_in_the_ledger_speaks_first() -> None:
    failed = _report("Failed", reason="TaskInvalid", message="module no_such was not found")

    error = _error(failed, _end(-9), _end(3, reason="NoSpace"))

    assert (error.exit_code, error.reason) == (ExitCode.FAILED, "TaskInvalid")
    assert "no_such" in error.message


def test_an_interrupted_run_says_where_it_stands_and_how_to_go_on() -> None:
    error = _error(_report(), _end(0), interrupted=True)

    assert (error.exit_code, error.reason) == (ExitCode.INTERRUPTED, "Interrupted")
    assert "step 11 of 336" in error.message
    assert "1.7606" in error.message
    more = _report(spent={"draws": 20, "epsilon": 1.76061})
    assert "1.7607" in _error(more, _end(0), interrupted=True).message, "never rounded down"
    assert RESUME in error.remedy
    assert (
        "20 of 366 draws charged, a lease at a time: what an orderly stop leaves" in error.message
    )


def test_before_the_ledger_nothing_was_spent() -> None:
    error = _error(None, interrupted=True)

    assert (error.exit_code, error.reason) == (ExitCode.INTERRUPTED, "Interrupted")
    assert "no privacy was spent" in error.message


@pytest.mark.parametrize(
    ("code", "exit_code", "reason"),
    [
        (1, ExitCode.FAILED, "Failed"),
        (2, ExitCode.BAD_INPUT, "BadConfiguration"),
        (3, ExitCode.REFUSED, "Refused"),
        (4, ExitCode.REFUSED, "Superseded"),
        (-9, ExitCode.FAILED, "WorkerDied"),
        (0, ExitCode.REFUSED, "Stopped"),
    ],
)
def test_without_an_outcome_the_workers_decide(code: int, exit_code: ExitCode, reason: str) -> None:
    error = _error(_report(), _end(0, position=1), _end(code))

    assert (error.exit_code, error.reason) == (exit_code, reason)


def test_what_can_be_resumed_says_how() -> None:
    refused = _error(_report(), _end(3, reason="NoSpace", message="no space left on /data"))

    assert refused.reason == "NoSpace"
    assert "no space left on /data" in refused.message
    assert RESUME in refused.remedy
    for code in (0, -9):
        assert RESUME in _error(_report(), _end(code)).remedy


AT_A_START = TRAINING_HELD - {
    Reason.PRIVACY_STATE_LOST,
    Reason.CHECKPOINT_LOST,
    Reason.LEDGER_UNREADABLE,
    Reason.STORAGE_FULL,
    Reason.STORAGE_UNUSABLE,
}


@pytest.mark.parametrize("reason", sorted(AT_A_START))
def test_what_a_start_finds_wrong_loses_nothing(reason: str) -> None:
    remedy = _error(_report(), _end(3, reason=reason)).remedy

    assert "Nothing is lost" in remedy
    assert RESUME in remedy


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PrivacyStateLost", ["Nothing was trained", f"dtjob ledger restore {RUN.path}"]),
        ("CheckpointLost", ["stays charged", "the model is lost", f"{RUN.state}/"]),
        ("LedgerUnreadable", ["step 11 is intact", "stay charged", f"{RUN.ledger}/"]),
        ("StorageFull", ["step 11 is intact", "are done again", "stay charged", "Make room"]),
        ("Stalled", ["step 11 is intact", "another lease", "runPolicy.stallSeconds"]),
        ("RanksCannotStart", ["step 11 is intact", f"{RUN.logs}/", "torch, opacus", "ulimit -v"]),
        ("", ["step 11 is intact", "stay charged"]),
    ],
)
def test_what_a_held_run_has_lost_is_said(reason: str, words: list[str]) -> None:
    remedy = _error(_report(), _end(3, reason=reason)).remedy

    assert "Nothing is lost" not in remedy
    for said in (*words, RESUME):
        assert said in remedy


def test_a_volume_that_is_there_is_to_be_made_readable(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.state.mkdir()
    (run.state / "file").touch()
    under = _report(checkpoint=str(run.state / "file" / "step-11.pt"))
    assert "The checkpoint of step 11 is intact" in held.remedy(
        "StorageUnusable", under, run, RESUME
    ), "what can't be looked at is not gone"
    remedy = held.remedy("StorageUnusable", _report(), run, RESUME)

    assert "The checkpoint of step 11 is intact" in remedy
    assert f"Make {run.state}/ readable and writable, then go on" in remedy


@pytest.mark.parametrize("left", ["", "state", "state/attempt-2"])
@pytest.mark.parametrize("reason", ["StorageUnusable", "StorageFull"])
def test_a_checkpoint_that_is_gone_is_not_said_to_be_intact(
    tmp_path: Path, left: str, reason: str
) -> None:
    run = RunDirectory(tmp_path)
    file = run.state / "attempt-2" / "step-11.pt"
    (tmp_path / left).mkdir(parents=True, exist_ok=True)
    gone = {"": f"{run.state}/", "state": f"{file.parent}/", "state/attempt-2": str(file)}[left]
    report = _report(checkpoint=str(file))
    remedy = held.remedy(reason, report, run, RESUME)

    assert f"The checkpoint of step 11 is not there: {gone} is gone" in remedy
    assert (f"Put {gone} back where it was, or from a copy" in remedy) == (
        reason == "StorageUnusable"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert "The checkpoint of step 11 is intact" in held.remedy(reason, report, run, RESUME)


def test_without_a_checkpoint_none_is_said_to_be_intact() -> None:
    remedy = _error(_report(step=0), _end(3, reason="StorageFull")).remedy

    assert "No step is checkpointed yet" in remedy
    assert "intact" not in remedy


@pytest.mark.parametrize("reason", ["StorageFull", "RanksCannotStart", ""])
def test_a_run_that_was_refused_before_its_first_draw_has_lost_nothing(reason: str) -> None:
    remedy = _error(_report(step=0, spent={"draws": 0}), _end(3, reason=reason)).remedy

    assert "Nothing is lost: no draw was charged. " in remedy
    assert "stay charged" not in remedy
    assert RESUME in remedy


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("LedgerUnreadable", f"{RUN.ledger}/ readable and writable"),
        ("StorageFull", "Make room"),
        ("RanksCannotStart", f"{RUN.logs}/ has the words"),
        ("RanksCannotStart", "ulimit -v"),
    ],
)
def test_a_run_that_was_refused_before_its_ledger_has_lost_nothing(reason: str, words: str) -> None:
    remedy = _error(None, _end(3, reason=reason)).remedy

    assert "no draw was charged" in remedy
    assert words in remedy
    assert RESUME not in remedy


def test_a_worker_that_died_too_often_is_told_with_the_likely_cause() -> None:
    died = local_workers.End(
        0, -9, "", "", restarted=False, cause="out of memory: the limit is 1 GiB"
    )

    message = _error(_report(), died).message

    assert "worker 0 ended with SIGKILL, and too often" in message
    assert "The last time: out of memory" in message


def test_a_bad_configuration_outweighs_the_others_that_were_stopped_for_it() -> None:
    error = _error(
        None, _end(-15, position=1), _end(2, reason="PortInUse", message="port 80 is in use")
    )

    assert error.reason == "PortInUse"
    assert "worker 0" in error.message


def test_of_equal_words_the_coordinators_counts() -> None:
    echo = _end(3, reason="RankFailed", message="lost its peers", position=1)

    assert _error(_report(), echo, _end(3, reason="StorageFull")).reason == "StorageFull"


def test_the_last_error_of_a_log_is_found_after_where_this_run_began(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.jsonl"
    old = {"level": "error", "reason": "Old", "message": "of an earlier run"}
    log.write_text(json.dumps(old) + "\n")
    start = log.stat().st_size
    new = [
        {"level": "error", "reason": "NoSpace", "message": "finished", "detail": "disk is full"},
        {"level": "info", "message": "bye"},
    ]
    with log.open("a") as stream:
        stream.writelines(json.dumps(entry) + "\n" for entry in new)

    assert local_workers.last_error(log, start) == ("NoSpace", "disk is full")
    assert local_workers.last_error(log, log.stat().st_size) == ("", "")


def test_words_of_the_interpreter_count_where_nothing_structured_was_said(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.jsonl"
    log.write_text("No module named dtjob_trainer\n")

    assert local_workers.last_error(log, 0) == ("", "No module named dtjob_trainer")


def test_what_goes_on_after_a_refusal_depends_on_its_reason() -> None:
    for reason, data in (("TaskFailed", "PATH"), ("StorageFull", "d")):
        assert _error(_report(), _end(3, reason=reason)).remedy.endswith(f"{RESUME} --data {data}")


def test_a_command_in_a_remedy_can_be_typed() -> None:
    run = RunDirectory(Path("my runs/digits-0a1b2c3d"))
    remedy = held.remedy(Reason.PRIVACY_STATE_LOST, _report(), run, RESUME)
    assert "(dtjob ledger restore 'my runs/digits-0a1b2c3d')" in remedy
