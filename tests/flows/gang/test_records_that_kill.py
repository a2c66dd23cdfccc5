"""A record that ends its process, or speaks out, is heard of nowhere; its draw stays charged."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dtjob_api.ledger.privacy_ledger import AttemptRecord
from tests.support.gangs.gang_run import GangRun
from tests.support.gangs.oracle import assert_true_account
from tests.support.tasks import fatal_records

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

_STEPS, _LEASE = 8, 5
_QUOTED = fatal_records.RECORD.encode()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, GangRun]]:
    """A run for each of them, side by side."""
    folder = tmp_path_factory.mktemp("fatal")
    runs: dict[str, GangRun] = {}
    for name in (*fatal_records.FATAL, *fatal_records.HARMLESS):
        (folder / name).mkdir()
        runs[name] = GangRun(
            folder / name,
            workers=1,
            steps=_STEPS,
            lease_steps=_LEASE,
            max_restarts=0,
            stays_after_outcome=True,
            task={"entrypoint": "fatal_records:task", "args": {"does": name}},
        )
    try:
        for run in runs.values():
            run.create_ledger()
            run.start()
        yield runs
    finally:
        for run in runs.values():
            run.stop()


def ended(run: GangRun) -> AttemptRecord:
    """How its only attempt ended, and nothing of what is left says what the record holds."""

    def end() -> AttemptRecord | None:
        attempts = run.ledger.read().ledger.status.attempts
        return attempts[-1] if attempts and attempts[-1].end is not None else None

    found: AttemptRecord = run.wait("end of the attempt", end)
    report = run.wait("report", run.report)
    assert _QUOTED.decode() not in str(report)
    left = [path for path in run.folder.rglob("*") if path.is_file()]
    assert run.log(0) in left
    assert [path for path in left if _QUOTED in path.read_bytes()] == []
    return found


@pytest.mark.rule(10, 20)
@pytest.mark.parametrize("name", fatal_records.FATAL)
def test_a_record_that_ends_its_process_is_not_quoted(told: dict[str, GangRun], name: str) -> None:
    run = told[name]
    end = ended(run)
    numbers = {"kill": signal.SIGKILL, "segfault": signal.SIGSEGV}
    numbers |= dict.fromkeys(("abort", "fatal-error"), signal.SIGABRT)
    assert end.signal == numbers.get(name)
    assert end.exit_code == (3 if name == "exit" else None)
    is_raised = end.signal is end.exit_code is None
    assert ("(tasks/fatal_records.py:" in str(end.message)) is is_raised
    ledger = assert_true_account(run)
    assert max(executed.step for executed in run.executed()) == _LEASE
    assert ledger.status.charged == _STEPS
    assert ledger.status.checkpoint is not None
    assert ledger.status.checkpoint.step == _LEASE
    assert ledger.status.lease is not None
    assert ledger.status.lease.closed_at is None


@pytest.mark.rule(2, 20)
@pytest.mark.parametrize("name", fatal_records.HARMLESS)
def test_what_a_record_writes_goes_nowhere(told: dict[str, GangRun], name: str) -> None:
    """Nor would its memory."""
    ended(told[name])
    outcome = told[name].ledger.read().ledger.status.outcome
    assert outcome is not None
    assert outcome.reason == "Completed"
