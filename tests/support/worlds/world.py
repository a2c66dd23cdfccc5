"""One job in a make-believe cluster: jobs, ledgers and pods as the API server stores them.

What the API server and kubelet do is imitated only as far as the plan reads it; the tests on a
real cluster hold the imitation to the truth.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dtjob_api.derive import child_name
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema.manifest import load
from dtjob_api.wire.positions import pod_name
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.decide.desired_state import decide
from dtjob_operator.read import coordinator_report
from dtjob_operator.terms.decision import Decision
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings
from tests.support.builders import UID, privacy_plan
from tests.support.checkout import DIGITS

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 14, 0, 0, tzinfo=UTC)
CHILD = child_name("digits", UID)

PLAN = privacy_plan(noise_multiplier=2.20319, epsilon_guaranteed=7.99912)
"""With more digits than a status shows, so that it is seen which way they are rounded."""


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def digits(**spec: Any) -> Json:
    """The digits job as the API server stores it: defaults filled in; `spec` replaces fields."""
    manifest = load(DIGITS)
    manifest["metadata"] |= {
        "namespace": "research",
        "uid": UID,
        "generation": 1,
        "creationTimestamp": stamp(NOW),
    }
    manifest["spec"] |= spec
    stored = DistributedTrainingJob.from_dict(manifest)
    return manifest | {"spec": stored.spec.to_dict()}


def pod(position: int = 0, since: datetime = NOW, **status: Any) -> Json:
    """A ready worker pod; `status` replaces fields of its status.

    It has a node, unless that says that none takes it.
    """
    has_none = {"type": "PodScheduled", "status": "False"}.items()
    homeless = any(has_none <= each.items() for each in status.get("conditions", ()))
    return {
        "metadata": {
            "name": pod_name(CHILD, position),
            "namespace": "research",
            "uid": f"pod-{position}-{stamp(since)}",
            "labels": {"dtjob.dev/job-uid": UID},
            "creationTimestamp": stamp(since),
        },
        "spec": {} if homeless else {"nodeName": f"node-{position}"},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True"},
            ],
            "containerStatuses": [
                {
                    "name": "worker",
                    "image": "trainer",
                    "ready": True,
                    "state": {"running": {"startedAt": stamp(since)}},
                }
            ],
        }
        | status,
    }


def waiting_pod(reason: str, message: str = "", position: int = 0, **container: Any) -> Json:
    """A pod whose worker container waits."""
    return pod(
        position,
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "True"}],
        containerStatuses=[
            {
                "name": "worker",
                "image": "ghcr.io/dtjob/trainer:0.1.0",
                "state": {"waiting": {"reason": reason, "message": message}},
            }
            | container
        ],
    )


def claim(phase: str = "Bound", **spec: Any) -> Json:
    """The checkpoint claim."""
    return {
        "metadata": {
            "name": f"checkpoints-{CHILD}-0",
            "namespace": "research",
            "uid": "claim",
            "labels": {"dtjob.dev/job-uid": UID},
            "creationTimestamp": stamp(NOW),
        },
        "spec": spec,
        "status": {"phase": phase},
    }


def answer(step: int, **fields: Any) -> Json:
    """What a coordinator that trains answers; `fields` replaces some."""
    return {
        "jobUID": UID,
        "generation": 1,
        "attempt": 1,
        "workers": 2,
        "state": "Running",
        "stage": "training",
        "step": step,
        "totalSteps": 336,
        "samplesPerSecond": 2560.04,
        "heartbeatTime": stamp(NOW + timedelta(seconds=step)),
        "estimatedCompletionTime": stamp(NOW + timedelta(minutes=5)),
        "evaluation": None,
        "gpu": None,
    } | fields


def report(step: int, **fields: Any) -> WorkerReport:
    """The report in that answer, as the scraper reads it."""
    found = coordinator_report.read(answer(step, **fields), UID)
    assert found is not None
    return found


@dataclass
class World:
    """A store of one job's objects, and what the operator wrote to it.

    Attributes
    ----------
    patches
        Every status that was written.
    applied
        Kinds of the children that were applied.
    """

    observed: Observed
    now: datetime = NOW
    settings: Settings = field(default_factory=Settings)
    patches: list[Json] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, job: Json | None = None, **observed: Any) -> World:
        return cls(Observed(job=job or digits(), **observed))

    def see(self, **observed: Any) -> None:
        """Something changes in the cluster."""
        self.observed = replace(self.observed, **observed)

    def decide(self) -> Decision:
        given = replace(self.observed, privacy_plan=None)
        before = copy.deepcopy(given)
        decision = decide(self.observed, self.now, self.settings)
        assert given == before, "the plan changed what it was given"
        return decision

    def reconcile(self) -> Decision:
        """Carry one decision out."""
        decision = self.decide()
        for reference in decision.deletes:
            if reference.kind == "DistributedTrainingJob":
                metadata = self.observed.job["metadata"]
                assert reference.uid == metadata["uid"]
                gone = metadata | {"deletionTimestamp": stamp(self.now)}
                self.see(job=self.observed.job | {"metadata": gone})
                continue
            deleted = {"kind": reference.kind, "metadata": {"name": reference.name}}
            self.see(**{slot_of(deleted): None})
        for child in decision.applies:
            self._apply(child)
        self.events += [event.reason for event in decision.events]
        if decision.status != self.status:
            assert decision.status is not None
            self.patches.append(decision.status)
            self.see(job=self.observed.job | {"status": decision.status}, status_written=self.now)
        return decision

    def settle(self) -> None:
        """Carry decisions out until there is nothing to do."""
        for _ in range(10):
            written, applied = len(self.patches), len(self.applied)
            decision = self.reconcile()
            if (written, applied) == (len(self.patches), len(self.applied)) and not (
                decision.deletes
            ):
                return
        raise AssertionError("no fixed point after 10 decisions")

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def status(self) -> Json:
        status: Json = self.observed.job.get("status", {})
        return status

    def condition(self, kind: str) -> Json:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def reason(self, kind: str) -> tuple[str, str]:
        found = self.condition(kind)
        return found["status"], found["reason"]

    def ledger_status(self, **fields: Any) -> None:
        """The coordinator writes the ledger's status."""
        assert self.observed.ledger is not None
        status = self.observed.ledger.get("status", {}) | fields
        self.see(ledger=self.observed.ledger | {"status": status})

    def lease(self, attempt: int = 1, charged: int = 10, step: int = 0) -> None:
        """An attempt that began now holds its first lease."""
        assert self.observed.ledger is not None
        run = self.observed.ledger["spec"]["run"]
        begun = {
            "attempt": attempt,
            "generation": run["generation"],
            "workers": run["workers"],
            "start": stamp(self.now),
        }
        earlier = [
            {"end": stamp(self.now), "reason": "WorkerLost"} | record
            for record in self.observed.ledger.get("status", {}).get("attempts", [])
        ]
        self.ledger_status(
            attempt=attempt,
            charged=charged,
            lease={
                "attempt": attempt,
                "fromDraw": charged - 10,
                "toDraw": charged,
                "fromStep": step,
            },
            checkpoint=checkpoint(step, attempt, charged, self.now),
            attempts=[*earlier, begun],
        )

    def stop(self, **fields: Any) -> None:
        """The attempt ends as it was asked to; `fields` replace some of its record."""
        assert self.observed.ledger is not None
        *earlier, last = self.observed.ledger["status"]["attempts"]
        ended = {"end": stamp(self.now), "reason": "Stopped"} | fields
        self.ledger_status(attempts=[*earlier, last | ended])

    def edit(self, **spec: Any) -> None:
        """The user changes fields of the spec."""
        job = copy.deepcopy(self.observed.job)
        job["spec"] |= spec
        job["metadata"]["generation"] += 1
        self.see(job=job)

    def start(self) -> None:
        """Bring the job from creation to its first step."""
        self.see(privacy_plan=PLAN)
        self.settle()
        self.later(5)
        self.see(pods=(pod(0), pod(1)), claim=claim())
        self.lease()
        self.see(report=report(0, samplesPerSecond=None))
        self.settle()

    def end(self, state: str = "Succeeded", reason: str = "Completed", **fields: Any) -> None:
        """The coordinator writes the outcome."""
        outcome = {"state": state, "reason": reason, "message": "", "time": stamp(self.now)}
        self.ledger_status(outcome=outcome | fields)

    def _apply(self, child: Json) -> None:
        slot = slot_of(child)
        stored = getattr(self.observed, slot)
        metadata = dict(child["metadata"])
        if stored is None:
            assert "uid" not in metadata, "a uid for what is not there"
            metadata["uid"] = f"{child['kind']}-{len(self.applied)}"
        else:
            assert metadata["uid"] == stored["metadata"]["uid"]
            if child["kind"] == "PrivacyLedger":
                written, known = child["spec"], stored["spec"]
                changed = {field for field in written if written[field] != known.get(field)}
                assert changed <= {"run", "runPolicy"}, "only order and run policy change"
                orders = written["run"]["generation"] - known["run"]["generation"]
                assert orders == ("run" in changed)
                child = stored | {"spec": written}
                metadata = stored["metadata"]
        self.applied.append(child["kind"])
        self.see(**{slot: copy.deepcopy(child | {"metadata": metadata})})


def running() -> World:
    """A job of two workers at its first step."""
    world = World.of()
    world.start()
    return world


_SLOTS = {
    "NetworkPolicy": "network_policy",
    "PodDisruptionBudget": "disruption_budget",
    "HorizontalPodAutoscaler": "autoscaler",
    "Service": "service",
    "PrivacyLedger": "ledger",
    "ServiceAccount": "service_account",
    "RoleBinding": "role_binding",
}


def slot_of(child: Json) -> str:
    """The field of `Observed` that a child belongs into."""
    if child["kind"] != "StatefulSet":
        return _SLOTS[child["kind"]]
    return "worker_set" if child["metadata"]["name"].endswith("-w") else "coordinator_set"


def checkpoint(step: int, attempt: int, charged: int, at: datetime) -> Json:
    return {
        "step": step,
        "charged": charged,
        "attempt": attempt,
        "path": f"attempt-{attempt}/step-{step}.pt",
        "sha256": "0" * 64,
        "time": stamp(at),
    }
