"""`dtjob report` of a run that drew nothing, and of what is no run and no ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dtjob_api.job.privacy import Telemetry
from dtjob_api.ledger.privacy_ledger import LedgerStatus, Outcome, OutcomeState
from dtjob_api.reasons import Reason
from dtjob_cli.main import app
from tests.support.builders import new_ledger
from tests.support.commands.stored_runs import PLAN, drawn, leased, stored_run

# Whoever is the first to ask for a figure waits for a helper to start.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_accountant")]


def report(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False, input=stdin)


def words(result: Result) -> str:
    return " ".join(result.stdout.split())


def test_a_run_that_drew_nothing_has_released_nothing(tmp_path: Path) -> None:
    run = stored_run(tmp_path, drawn(0))

    assert json.loads(report(str(run.path), "-o", "json").stdout)["released"] == []
    assert "released nothing: no batch was drawn" in words(report(str(run.path)))


def test_a_run_that_drew_has_released_its_model(tmp_path: Path) -> None:
    run = stored_run(tmp_path, drawn(10))
    leased(run, 10)

    assert "the model" in json.loads(report(str(run.path), "-o", "json").stdout)["released"]
    assert "released the model, " in words(report(str(run.path)))


@pytest.mark.rule(19)
@pytest.mark.parametrize("opted_out", [False, True])
def test_a_report_of_a_ledger_says_what_epsilon_does_not_cover(opted_out: bool) -> None:
    """As that of a run does; both read it in the frozen plan."""
    telemetry = Telemetry.NOT_COVERED_BY_EPSILON if opted_out else Telemetry.COVERED_BY_EPSILON
    plan = PLAN.model_copy(update={"telemetry": telemetry})
    ledger = json.dumps(new_ledger(plan, **dict(drawn(20))).to_dict()).encode()
    released = json.loads(report("-", "-o", "json", stdin=ledger).stdout)["released"]
    assert "the model" in released
    assert any("NOT covered by epsilon" in each for each in released) is opted_out


def forged(charged: int) -> LedgerStatus:
    outcome = Outcome(
        state=OutcomeState.SUCCEEDED,
        reason=Reason.COMPLETED,
        message="336 of 336 steps done, epsilon 0.0100 spent in 1 draws charged",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        result={"epsilonSpent": "0.0100", "steps": 336, "evaluation": {"accuracy": 0.9}},
    )
    return drawn(charged).model_copy(update={"outcome": outcome})


@pytest.mark.rule(13)
@pytest.mark.parametrize("in_a_cluster", [False, True])
def test_no_word_of_the_workers_on_epsilon_is_shown(tmp_path: Path, in_a_cluster: bool) -> None:
    run = stored_run(tmp_path, forged(35))
    source = str(next(run.ledger.iterdir()).rename(run.path / "l") if in_a_cluster else run.path)

    told = report(source)

    assert "0.01" not in told.stdout
    assert "0 of 336 steps done, 35 draws charged" in words(told)
    assert json.loads(report(source, "-o", "json").stdout)["spent"]["epsilon"] > 1.5


def escaping(text: str) -> str:
    """A text that goes up to the line of epsilon and writes another over it."""
    return f"{text}\n\x1b[12F\x1b[2K \x9b36m\u202eε spent 0.0100\u2028(the charged draws)\x1b[12E"


def disguised(charged: int) -> dict[str, Any]:
    """A ledger whose workers write a line of the report into every text that they may write."""
    ledger = new_ledger(PLAN, **dict(forged(charged))).to_dict()
    status = ledger["status"]
    status["segments"][0]["image"] = escaping("trainer")
    status["segments"][0]["versions"]["torch"] = escaping("2")[:64]
    status["segments"][0]["versions"]["packages"] = [escaping("peft==1"), "torch==0.0100"]
    status["segments"][0]["taskDigest"] = escaping("sha256:")[:71]
    status["initialModelDigest"] = escaping("")
    status["checkpoint"] = {
        "step": 10,
        "charged": charged,
        "attempt": 1,
        "path": escaping("attempt-1/step-10.pt"),
        "sha256": "0" * 64,
        "time": "2026-01-01T00:00:00Z",
    }
    status["outcome"] |= {"state": "Failed", "reason": "TaskFailed", "message": escaping("oh")}
    status["outcome"]["result"] |= {
        "modelDigest": escaping("sha256:0"),
        "evaluation": {"accuracy": 0.9, escaping("accuracy"): 1.0},
    }
    return ledger


@pytest.mark.rule(13)
def test_no_text_of_a_worker_writes_over_the_lines_of_a_report() -> None:
    told = report("-", stdin=json.dumps(disguised(35)).encode())

    assert told.exit_code == 0
    assert all(line.isprintable() for line in told.stdout.split("\n"))
    ours = [line for line in told.stdout.splitlines() if line.lstrip().startswith("ε spent")]
    assert len(ours) == 1
    assert "0.0100" not in ours[0]
    # The failure alone is told in its worker's words, as one text.
    assert told.stdout.count("0.0100") == 1
    assert "TaskFailed): oh \\x1b[12F\\x1b[2K" in told.stdout


@pytest.mark.parametrize(
    "result",
    [
        {"evaluation": [1]},
        {"evaluation": "accurate"},
        {"evaluation": {"a": {"b": 1}}},
        {"modelDigest": {"a": 1}},
        {"modelDigest": [1]},
        {"withoutEvaluation": {"a": 1}},
    ],
)
def test_a_result_of_another_form_ends_no_report(result: dict[str, Any]) -> None:
    ledger = disguised(35)
    ledger["status"]["outcome"]["result"] = result

    for output in ("text", "json"):
        told = report("-", "-o", output, stdin=json.dumps(ledger).encode())
        assert told.exit_code == 0


@pytest.mark.rule(13)
def test_a_stored_report_is_believed_in_nothing(tmp_path: Path) -> None:
    """A process of the task may write it, and a ledger can be raised after the end."""
    run = stored_run(tmp_path, forged(35))
    true = json.loads(report(str(run.path), "-o", "json").stdout)
    planted = true | {"spent": {"draws": 35, "epsilon": 0.01}, "message": "0.01", "model": "0.01"}
    run.privacy_report.write_text(json.dumps(planted))

    assert json.loads(report(str(run.path), "-o", "json").stdout) == true
    assert "0.01" not in report(str(run.path)).stdout


def test_a_ledger_is_read_from_the_standard_input(tmp_path: Path) -> None:
    run = stored_run(tmp_path, drawn(10))
    (version,) = run.ledger.iterdir()

    for text in (version.read_text().encode(), version.read_text().encode("utf-16")):
        result = report("-", "-o", "json", stdin=text)
        assert json.loads(result.stdout)["scope"] == "this job only"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is no JSON: byte 2 is not UTF-16"),
        (b'{"kind": "\xe9"}', "is no JSON: byte 10 is not UTF-8"),
        (b"kind: PrivacyLedger\n", "is no JSON: Expecting value"),
        (b'{"kind": "Pod"}', "this is a Pod, not a PrivacyLedger."),
        (b'{"kind": "Pod\\n\\u001b[2K"}', r"this is a Pod \x1b[2K, not a PrivacyLedger."),
        (b'{"kind": "List", "items": []}', "this is a List, not a PrivacyLedger."),
        (10**5 * b"[", "its JSON is nested too deeply."),
        (10**5 * b'{"kind":', "its JSON is nested too deeply."),
        (b"{}", "this has no kind, not a PrivacyLedger."),
        (b"[1]", "this has no kind, not a PrivacyLedger."),
        (b'{"kind": "PrivacyLedger"}', "a PrivacyLedger that can't be read: metadata: "),
    ],
    ids=lambda it: it[:30],
)
def test_what_is_no_ledger_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)

    for result in (report(str(file)), report("-", stdin=content)):
        assert result.exit_code == 2
        assert result.stderr.startswith("error (NoLedger): ")
        assert message in result.stderr
        assert "kubectl get privacyledger NAME" in result.stderr


def test_a_report_is_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "my runs").mkdir()
    run = stored_run(tmp_path / "my runs", drawn(0))
    left: dict[str, Any] = json.loads(report(str(run.path), "-o", "json").stdout)
    run.privacy_report.write_text(json.dumps(left))

    result = report(str(run.privacy_report))

    assert result.exit_code == 2
    assert result.stderr.startswith("error (NoLedger): ")
    assert "is the report that a run has left" in result.stderr
    assert f"dtjob report '{run.path}'" in result.stderr


def test_a_version_of_a_runs_ledger_is_not_the_run(tmp_path: Path) -> None:
    """What its journals tell of would be left out."""
    run = stored_run(tmp_path, drawn(10))
    leased(run, 20)

    result = report(str(next(run.ledger.iterdir())))

    assert result.exit_code == 2
    assert result.stderr.startswith("error (NoLedger): ")
    assert "is one version of a run's ledger" in result.stderr
    assert f"dtjob report {run.path}" in result.stderr
