"""Jobs that a user got wrong: applied all at once, each in a namespace of its own, and watched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Template
from typing import Any

from ruamel.yaml import YAML

from tests.support.builders import new_job
from tests.support.checkout import ROOT
from tests.support.clusters import standstill
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl

CASES = YAML(typ="safe").load((ROOT / "tests" / "flows" / "cluster" / "bad_input.yaml").read_text())
JOB = "digits"
REPORT_SECONDS = 15.0
"""From the cluster's first word of a trouble to the job's condition."""
OUTCOME_SECONDS = 2.0
"""From the ledger's outcome to the job's condition."""
_POLL_SECONDS = 0.3
_ROUNDING_SECONDS = 1.0  # of an Event's times
_LABEL = "dtjob.dev/test"


def small_job(image: str, entrypoint: str) -> Manifest:
    """A job of one worker and few steps."""
    return new_job(
        JOB,
        image=image,
        workers={"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}},
        training={"entrypoint": entrypoint},
        storage={"checkpoints": {"size": "16Mi"}},
    )


@dataclass
class Watched:
    """One case's job as it was seen.

    Attributes
    ----------
    reported
        The job when it first had the expected reason and words, or the reason alone so far; {} if
        it never had.
    described
        What `kubectl describe` showed then.
    complete
        Whether all was reported that the case expects.
    went_on
        Whether the reason went and a worker ran after the remedy.
    """

    case: dict[str, Any]
    kubectl: Kubectl
    created: datetime
    job: Manifest = field(default_factory=dict)
    reported: Manifest = field(default_factory=dict)
    described: str = ""
    complete: bool = False
    went_on: bool = False

    @property
    def reason(self) -> str:
        """The reason that the case expects."""
        (reason,) = self.case["expect"]
        return str(reason)

    @property
    def done(self) -> bool:
        """Whether there is nothing more to see."""
        return self.went_on if "remedy" in self.case else self.complete

    def look(self, job: Manifest, pods: list[Manifest]) -> None:
        """Take note of how the job is, and mend it as soon as it reports what is wrong."""
        self.job = job
        has_reason = self.reason in {
            condition(job, kind).get("reason") for kind in ("Running", "Failed")
        }
        if has_reason and not self.complete:
            self.reported, self.described = job, self.kubectl("describe", "dtjob", JOB)
            self.complete = not self.missing()
            if self.complete and (remedy := self.case.get("remedy")):
                self.kubectl.apply(*remedy)
        running = any(pod["status"].get("phase") == "Running" for pod in pods)
        self.went_on = self.complete and running and not has_reason

    def missing(self) -> list[str]:
        """Of the words that the case expects, those that were not reported, each with its place."""
        ((reason, words),) = self.case["expect"].items()
        found = condition(self.reported, "Failed") or condition(self.reported, "Running")
        conditions, _, events = self.described.partition("\nEvents:")
        places = [("reason", reason, found["reason"]), ("events", reason, events)]
        places += [("conditions", word, conditions) for word in (reason, *words)]
        places += [("message", word, found["message"]) for word in words]
        return [f"{place}: {word}" for place, word, text in places if word not in text]

    def assert_reported(self) -> None:
        """A condition, its message and an event say what is wrong, where, and the remedy."""
        assert self.reported, json.dumps(self.job.get("status"), indent=1)
        assert self.missing() == [], self.described

    def assert_reported_in_time(self) -> None:
        """The condition came soon after the cluster's own first word of the trouble."""
        assert self.reported, json.dumps(self.job.get("status"), indent=1)
        since, allowed = self.created, self.case.get("within", REPORT_SECONDS)
        if fact := self.case.get("fact"):
            since = self.first_event(None, fact)
        if written := self.outcome_written():
            since, allowed = written, OUTCOME_SECONDS
        # The operator records its event just before it writes the condition.
        at = self.first_event("DistributedTrainingJob", {self.reason})
        took = standstill.ran(since.timestamp(), at.timestamp())
        assert took <= allowed + _ROUNDING_SECONDS

    def outcome_written(self) -> datetime | None:
        """When the API server took the ledger's outcome; else the worker's own time.

        The worker takes its time before it writes, and may wait for the API server.
        """
        for ledger in self.kubectl.list("privacyledgers", managed_fields=True):
            if outcome := ledger.get("status", {}).get("outcome"):
                written = [
                    entry["time"]
                    for entry in ledger["metadata"].get("managedFields", [])
                    if "f:outcome" in entry.get("fieldsV1", {}).get("f:status", {})
                ]
                return datetime.fromisoformat(min(written, default=outcome["time"]))
        return None

    def first_event(self, kind: str | None, reasons: Collection[str]) -> datetime:
        """When the first event of these reasons was recorded."""
        return min(
            datetime.fromisoformat(event.get("firstTimestamp") or event["eventTime"])
            for event in self.kubectl.list("events")
            if event["reason"] in reasons and kind in (None, event["involvedObject"]["kind"])
        )


def condition(job: Manifest, kind: str) -> dict[str, Any]:
    """A condition of a job; empty if it has none of that type."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def merged(base: Any, extra: Any) -> Any:
    """`base` with the fields of `extra` over its own."""
    if not (isinstance(base, dict) and isinstance(extra, dict)):
        return extra
    return base | {key: merged(base.get(key), value) for key, value in extra.items()}


def filled_in(case: dict[str, Any], **values: str) -> dict[str, Any]:
    """A case with its ${names} replaced."""
    filled: dict[str, Any] = json.loads(Template(json.dumps(case)).safe_substitute(values))
    return filled


@contextmanager
def all_watched(
    cases: list[dict[str, Any]],
    installed: Installed,
    new_namespace: Callable[[], Kubectl],
    entrypoint: str,
    patience: float,
) -> Iterator[dict[str, Watched]]:
    """All jobs, once each reports what is wrong and gone on, or has had time enough.

    What belongs to the cluster is removed in the end.
    """
    surroundings, watched = _surroundings(installed), {}
    for template in cases:
        kubectl = new_namespace()
        case = filled_in(template, namespace=kubectl.namespace, **surroundings)
        if given := case.get("given"):
            kubectl.apply(*given)
        plain = small_job(installed.worker_image, entrypoint)
        job = merged(plain, {"spec": case.get("spec", {})})
        job["metadata"]["labels"] = {_LABEL: "bad-input"}
        kubectl.apply(job)
        watched[case["name"]] = Watched(case, kubectl, datetime.now(UTC))
    _watch(watched, patience)
    yield watched
    for each in watched.values():
        each.kubectl("delete", "dtjob", "--all", "--wait=false")
        own = f"storageclass/{each.kubectl.namespace}", f"pv/{each.kubectl.namespace}"
        each.kubectl("delete", *own, "--ignore-not-found", "--wait=false")


def _watch(watched: dict[str, Watched], patience: float) -> None:
    waiting = dict(watched)
    some = next(iter(watched.values())).kubectl
    deadline = time.monotonic() + patience
    while waiting and time.monotonic() < deadline:
        jobs = some.list("dtjobs", everywhere=True, selector=f"{_LABEL}=bad-input")
        pods = some.list("pods", everywhere=True, selector=f"dtjob.dev/job={JOB}")
        by_namespace = {job["metadata"]["namespace"]: job for job in jobs}
        for name, each in list(waiting.items()):
            own = [p for p in pods if p["metadata"]["namespace"] == each.kubectl.namespace]
            each.look(by_namespace[each.kubectl.namespace], own)
            if each.went_on:
                # It need not train on the machine that the others share.
                each.kubectl("delete", "dtjob", JOB, "--wait=false")
            if each.done:
                del waiting[name]
        time.sleep(_POLL_SECONDS)


def _surroundings(installed: Installed) -> dict[str, str]:
    """What the cases name of this cluster."""
    operator = installed.system.get("deployment", "dtjob-operator")
    assert operator
    default = next(
        each
        for each in installed.system.list("storageclasses")
        if "storageclass.kubernetes.io/is-default-class" in each["metadata"].get("annotations", {})
    )
    image = installed.worker_image
    name = image.partition("@")[0]
    return {
        "image": image,
        "repository": name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name,
        "operator": operator["spec"]["template"]["spec"]["containers"][0]["image"],
        "node": installed.system.list("nodes")[0]["metadata"]["name"],
        "provisioner": default["provisioner"],
    }
