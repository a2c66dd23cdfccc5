"""What holds of a gang's run whatever happened to it."""

from __future__ import annotations

import json

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from tests.support.gangs.gang_run import GangRun


def assert_true_account(run: GangRun) -> PrivacyLedger:
    """Rules 1, 2, 10, 13: charged covers what was executed; no draw, mask or noise came twice."""
    versions = sorted(run.ledger.path.glob("*.json"))
    charged = [json.loads(v.read_text()).get("status", {}).get("charged", 0) for v in versions]
    assert charged == sorted(charged), "epsilon went down"
    ledger = run.ledger.read().ledger
    executed = run.executed()
    assert executed
    assert max(e.draw for e in executed) < ledger.status.charged
    by_draw = {(e.draw, e.rank): e for e in executed}
    assert len(by_draw) == len(executed), "a draw was executed twice"
    assert len({(e.attempt, e.draw) for e in executed}) == len({e.draw for e in executed})
    first = [e for e in executed if e.rank == 0]
    assert len({e.mask for e in first}) == len(first), "a mask came twice"
    assert len({e.noise for e in first}) == len(first), "noise came twice"
    return ledger


def assert_finished(run: GangRun) -> PrivacyLedger:
    assert run.wait_for_exit() == [0] * run.workers, run.logs()
    ledger = assert_true_account(run)
    assert ledger.status.outcome is not None
    assert ledger.status.outcome.reason == "Completed", ledger.status.outcome
    assert ledger.status.checkpoint is not None
    assert ledger.status.checkpoint.step == run.steps
    return ledger
