"""The plan converges from whatever happens in the cluster, and what is spent is never forgotten."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dtjob_accounting.errors import PlanError
from dtjob_api.job.status import JobStatus
from dtjob_api.reasons import Phase, Reason
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.terms.decision import Decision
from dtjob_operator.terms.observed import Endpoint, Rejection, Spent
from testing.examples import examples
from tests.support.builders import UID
from tests.support.worlds.world import (
    CHILD,
    PLAN,
    World,
    claim,
    digits,
    pod,
    report,
    slot_of,
    stamp,
    waiting_pod,
)

Json = dict[str, Any]
SETS = ("coordinator_set", "worker_set")
KINDS = {
    "coordinator_set": "StatefulSet",
    "worker_set": "StatefulSet",
    "service": "Service",
    "network_policy": "NetworkPolicy",
    "disruption_budget": "PodDisruptionBudget",
}
OWN = tuple(KINDS)
CHILDREN = (*OWN, "service_account", "role_binding")
ORDER = [Phase.SUCCEEDED, Phase.FAILED]
INTRUDER = "intruder"

pods_seen = st.lists(
    st.one_of(
        st.builds(pod, st.integers(0, 1)),
        st.builds(
            waiting_pod,
            st.sampled_from(
                ["ImagePullBackOff", "ContainerCreating", "CreateContainerConfigError", "Other"]
            ),
            st.text(max_size=20),
            st.integers(0, 1),
        ),
    ),
    max_size=2,
    unique_by=lambda each: each["metadata"]["name"],
).map(tuple)


class Course(RuleBasedStateMachine):
    """One job, and everything that can happen around it in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World.of(digits())
        self.lost_ledger: Json | None = None
        self.final: Json | None = None
        self.epsilon = Decimal(0)
        self.charged = 0

    # What happens in the cluster.

    @initialize(plan=st.sampled_from([PLAN, None, PlanError("spec.privacy.delta", 1, "less")]))
    def planned(self, plan: Any) -> None:
        self.world.see(privacy_plan=plan)

    @rule()
    def calibrated(self) -> None:
        self.world.see(privacy_plan=PLAN)

    @rule(seconds=st.sampled_from([0.1, 1, 5, 16, 100]))
    def time_passes(self, seconds: float) -> None:
        self.world.later(seconds)

    @rule(slot=st.sampled_from(CHILDREN))
    def child_is_deleted(self, slot: str) -> None:
        self.world.see(**{slot: None})

    @rule(slot=st.sampled_from(OWN))
    def foreign_object_appears(self, slot: str) -> None:
        name = f"{CHILD}-w" if slot == "worker_set" else CHILD
        metadata = {"name": name, "uid": INTRUDER, "labels": {"app": INTRUDER}}
        self.world.see(
            **{slot: {"kind": KINDS[slot], "metadata": metadata, "spec": {"x": INTRUDER}}}
        )

    @rule(slot=st.sampled_from(CHILDREN), data=st.data())
    def child_drifts(self, slot: str, data: st.DataObject) -> None:
        child = getattr(self.world.observed, slot)
        if child is None or child["metadata"]["uid"] == INTRUDER:
            return
        changed = copy.deepcopy(child)
        if slot in SETS:
            changed["spec"]["replicas"] = data.draw(st.integers(0, 3))
            if data.draw(st.booleans()):
                changed["metadata"]["annotations"] = {"dtjob.dev/template-digest": "older"}
        elif slot == "service":
            changed["spec"]["selector"] = {}
        elif slot == "network_policy":
            changed["spec"]["ingress"].append({})
        elif slot == "disruption_budget":
            changed["spec"]["maxUnavailable"] = 2
        elif slot == "role_binding":
            changed["roleRef"]["name"] = data.draw(st.sampled_from(["view", "dtjob-worker"]))
        else:
            changed["metadata"]["labels"].pop("app.kubernetes.io/part-of", None)
        self.world.see(**{slot: changed})

    @rule(pods=pods_seen)
    def pods_change(self, pods: tuple[Json, ...]) -> None:
        self.world.see(pods=pods)

    @rule(there=st.booleans())
    def claim_changes(self, there: bool) -> None:
        self.world.see(claim=claim() if there else None)

    @rule(refused=st.booleans())
    def api_server_refuses(self, refused: bool) -> None:
        said = Rejection("StatefulSet", CHILD, "exceeded quota")
        self.world.see(rejections=(said,) if refused else ())

    @rule(replicas=st.integers(1, 4))
    def replicas_are_edited(self, replicas: int) -> None:
        job = copy.deepcopy(self.world.observed.job)
        job["spec"]["workers"]["replicas"] = replicas
        job["metadata"]["generation"] += 1
        self.world.see(job=job)

    @rule(suspend=st.booleans())
    def suspend_is_edited(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @precondition(lambda self: self.world.observed.ledger is not None)
    @rule()
    def workers_drain(self) -> None:
        self.attempt_ends("Stopped")
        run = self.world.observed.ledger["spec"]["run"]  # type: ignore[index]
        if run["state"] == "Drain":
            self.world.ledger_status(drained=run["generation"])

    @rule(policy=st.sampled_from(["Restricted", "None"]))
    def network_is_edited(self, policy: str) -> None:
        job = copy.deepcopy(self.world.observed.job)
        job["spec"]["network"] = {"policy": policy}
        job["metadata"]["generation"] += 1
        self.world.see(job=job)

    @rule(address=st.sampled_from(["192.0.2.1/32", "192.0.2.2/32", None]))
    def api_server_moves(self, address: str | None) -> None:
        service = Endpoint(("10.96.0.1/32",), (443,))
        self.world.see(api_server=(Endpoint((address,), (6443,)), service) if address else ())

    @rule(said=st.none() | st.builds(report, st.integers(0, 400), attempt=st.integers(0, 5)))
    def report_is_scraped(self, said: WorkerReport | None) -> None:
        self.world.see(report=said)

    @rule(epsilon=st.none() | st.decimals(0, 8, places=4).map(str))
    def epsilon_is_computed(self, epsilon: str | None) -> None:
        status = (self.world.observed.ledger or {}).get("status", {})
        self.world.see(spent=Spent(epsilon, status.get("charged", 0)) if epsilon else None)

    @rule(step=st.integers(0, 336))
    def everything_goes_well(self, step: int) -> None:
        """Else a random walk hardly ever trains."""
        for slot in OWN:
            child = getattr(self.world.observed, slot)
            if child is not None and child["metadata"]["uid"] == INTRUDER:
                self.world.see(**{slot: None})
        well = {"pods": (pod(0), pod(1)), "claim": claim(), "rejections": ()}
        self.world.see(**well)
        self.world.reconcile()
        self.world.reconcile()
        if self.world.observed.ledger is not None:
            self.attempt_leases(step)

    @precondition(lambda self: self.world.observed.ledger is not None)
    @rule(step=st.integers(0, 336))
    def attempt_leases(self, step: int) -> None:
        status = (self.world.observed.ledger or {}).get("status", {})
        charged = min(status.get("charged", 0) + 10, 366)
        if "outcome" not in status:
            self.world.lease(status.get("attempt", 0) + 1, charged, min(step, charged))

    @precondition(lambda self: self.world.observed.ledger is not None)
    @rule(reason=st.sampled_from(["RankFailed", "Stopped", "StorageFull", "CheckpointLost"]))
    def attempt_ends(self, reason: str) -> None:
        attempts = (self.world.observed.ledger or {}).get("status", {}).get("attempts", [])
        if attempts:
            ended = {"end": stamp(self.world.now), "reason": reason}
            self.world.ledger_status(attempts=[*attempts[:-1], attempts[-1] | ended])

    @precondition(lambda self: self.world.observed.ledger is not None)
    @rule(
        end=st.sampled_from([("Succeeded", "Completed"), ("Failed", "TaskFailed")]),
        epsilon=st.sampled_from(["7.9", "0.1"]),
    )
    def job_ends(self, end: tuple[str, str], epsilon: str) -> None:
        if "outcome" not in (self.world.observed.ledger or {}).get("status", {}):
            self.world.end(*end, result={"epsilonSpent": epsilon})

    # Before the status tells of it no pod has run, and nothing is lost with it.
    @precondition(lambda self: self.world.observed.ledger is not None and self._accepted())
    @rule()
    def ledger_is_lost(self) -> None:
        self.lost_ledger = self.world.observed.ledger
        self.world.see(ledger=None)

    @precondition(lambda self: self.lost_ledger is not None)
    @rule()
    def ledger_is_restored(self) -> None:
        self.world.see(ledger=self.lost_ledger)
        self.lost_ledger = None

    # What the operator does about it.

    @rule()
    def operator_decides_once(self) -> None:
        self._reconcile()

    @rule()
    def operator_settles(self) -> None:
        """A fixed point is reached, and there nothing is left to apply or to write."""
        self.world.later(60)
        for _ in range(8):
            self._reconcile()
        decision = self.world.decide()
        assert (decision.applies, decision.deletes, decision.events) == ((), (), ())
        assert decision.status == self.world.status
        self._is_as_wanted()

    def _reconcile(self) -> None:
        self._touches_only_its_own(self.world.decide())
        self.world.reconcile()
        if self.lost_ledger is not None:
            assert self.world.observed.ledger is None, "a lost ledger was made anew"

    def _touches_only_its_own(self, decision: Decision) -> None:
        for child in decision.applies:
            assert INTRUDER not in json.dumps(child)
            assert child["metadata"]["namespace"] == "research"
            if child["kind"] in {*KINDS.values(), "PrivacyLedger"}:
                assert child["metadata"]["name"] in (CHILD, f"{CHILD}-w")
                assert child["metadata"]["labels"]["dtjob.dev/job-uid"] == UID
                stored = getattr(self.world.observed, slot_of(child))
                if stored is not None:
                    assert stored["metadata"]["labels"]["dtjob.dev/job-uid"] == UID
        for reference in decision.deletes:
            assert reference.uid != INTRUDER

    def _is_as_wanted(self) -> None:
        observed, phase = self.world.observed, self.world.status.get("phase")
        sets = [getattr(observed, slot) for slot in SETS]
        own = [each for each in sets if each is not None and each["metadata"]["uid"] != INTRUDER]
        if phase in ORDER:
            assert all(each["spec"]["replicas"] == 0 for each in own)
        if phase in {Phase.STARTING, Phase.RUNNING, Phase.RESTARTING} and not self._conflict():
            run = observed.ledger["spec"]["run"]  # type: ignore[index]
            assert run["state"] == "Run"
            workers = sum(each["spec"]["replicas"] for each in own)
            wanted = set(CHILDREN)
            if len(own) == 1:
                wanted.remove("worker_set")
            # Those of the gang; more while others join it, or until it has stopped to be smaller.
            assert workers >= run["workers"]
            asked = observed.job["spec"]["workers"]["replicas"]
            status = observed.ledger.get("status", {})  # type: ignore[union-attr]
            last = status.get("attempts", [{}])[-1]
            assert workers in {run["workers"], asked, last.get("workers")}
            if observed.job["spec"]["network"]["policy"] == "None":
                wanted.remove("network_policy")
                policy = observed.network_policy
                assert policy is None or policy["metadata"]["uid"] == INTRUDER
            assert all(getattr(observed, slot) is not None for slot in wanted)

        if phase == Phase.SUSPENDED:
            assert observed.pods == ()
            assert all(each["spec"]["replicas"] == 0 for each in own)

    def _accepted(self) -> bool:
        conditions = self.world.status.get("conditions", [])
        return any((c["type"], c["status"]) == ("Accepted", "True") for c in conditions)

    def _conflict(self) -> bool:
        conditions = self.world.status.get("conditions", [])
        return any(c["reason"] == Reason.NAME_CONFLICT for c in conditions)

    # What always holds.

    @invariant()
    def status_is_valid(self) -> None:
        if self.world.status:
            assert JobStatus.model_validate(self.world.status).to_dict() == self.world.status

    @invariant()
    def rule_13_what_is_spent_only_grows(self) -> None:
        privacy = self.world.status.get("privacy", {})
        epsilon = Decimal(privacy.get("epsilonSpent", "0"))
        charged = privacy.get("drawsCharged", 0)
        assert epsilon >= self.epsilon
        assert charged >= self.charged
        self.epsilon, self.charged = epsilon, charged

    @invariant()
    def terminal_is_final(self) -> None:
        status = self.world.status
        course = {field: status.get(field) for field in ("phase", "conditions", "result")}
        if self.final is not None:
            assert course == self.final
        elif status.get("phase") in ORDER:
            self.final = course


TestCourse = pytest.mark.slow(Course.TestCase)
TestCourse.settings = settings(
    max_examples=examples(60), stateful_step_count=25, deadline=None, derandomize=True
)
