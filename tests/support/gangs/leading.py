"""What a leader in the test's own process receives, and what others write into its ledger."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

from dtjob_api.ledger.lease_rules import next_unused_draw
from dtjob_api.ledger.privacy_ledger import OrderState, Outcome, OutcomeState
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import Action, Directive, End, EndKind, Hello
from dtjob_api.wire.pipe import Drain, ToRank
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.identity.proof import Speaker
from dtjob_trainer.ledger.lease import next_lease, with_lease
from tests.support.builders import PROVENANCE, checkpoint
from tests.support.gangs.gang_run import GangRun


class Ranks:
    """Rank 0 as the leader sees it: it misses the first `deaf` messages."""

    def __init__(self, deaf: int) -> None:
        self.deaf, self.asked = deaf, 0

    def tell(self, message: ToRank) -> bool:
        assert message == Drain()
        self.asked += 1
        return self.asked > self.deaf


async def follow(
    leader: Leader, *, until: Action, position: int = 0, incarnation: str = "a", **hello: Any
) -> Directive:
    """Say the same until the directive is the expected one."""
    known = -1
    for _ in itertools.count():
        greeting = Hello(
            position=position, incarnation=incarnation, ready=True, known=known, **hello
        )
        async with asyncio.timeout(60):
            directive = await leader.reception.hello(greeting, Speaker(position, ""))
        if directive.action is until:
            return directive
        known = directive.revision
    raise AssertionError


def write_status(run: GangRun, **changes: Any) -> None:
    newest = run.ledger.read()
    run.ledger.replace_status(newest, newest.ledger.status.model_copy(update=changes))


def lease_as(run: GangRun, attempt: int) -> None:
    """What a coordinator writes before its first step."""
    newest = run.ledger.read()
    lease = next_lease(newest.ledger, attempt, next_unused_draw(newest.ledger.status), 0)
    assert lease is not None
    record = checkpoint(0, 0, attempt, datetime.now(UTC))
    leased = with_lease(newest.ledger, lease, record, PROVENANCE)
    run.ledger.replace_status(newest, leased)


def an_end(kind: EndKind, reason: Reason) -> End:
    return End(kind=kind, rank=0, reason=reason, message="no module named 'clinic'")


def succeeded() -> Outcome:
    return Outcome(
        state=OutcomeState.SUCCEEDED,
        reason=Reason.COMPLETED,
        message="60 of 60 steps done",
        time=datetime.now(UTC),
    )


def order(run: GangRun, state: OrderState, workers: int | None = None) -> None:
    """As the operator does, for the first time; for as many workers as before, if not stated."""
    newest = run.ledger.read()
    spec = newest.ledger.spec
    changed = {"generation": 2, "state": state, "workers": workers or spec.run.workers}
    ordered = spec.run.model_copy(update=changed)
    run.ledger.replace_spec(newest, spec.model_copy(update={"run": ordered}))
