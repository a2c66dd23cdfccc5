"""What a user gets wrong is told with the remedy, and what is mended goes on.

All jobs of bad_input.yaml are applied at once, each in a namespace of its own; then all remedies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

import pytest
import standstill
from installed import Installed
from kube import Kubectl, Manifest, wait_for
from ruamel.yaml import YAML

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

CASES = YAML(typ="safe").load(Path(__file__).with_name("bad_input.yaml").read_text())
by_name = pytest.mark.parametrize("name", [case["name"] for case in CASES])
mendable = pytest.mark.parametrize("name", [c["name"] for c in CASES if "remedy" in c])

SEEN_SECONDS = 15.0
"""From the cluster's first word of a trouble to the job's condition."""
OUTCOME_SECONDS = 2.0
"""From the ledger's outcome to the job's condition."""
_POLL_SECONDS = 0.3
_ROUNDING_SECONDS = 1.0  # of an Event's times
_PATIENCE_SECONDS = 600  # for four imports of torch at a time on two busy cores
_JOB = "digits"
_LABEL = "dtjob.dev/test"


def small_job(image: str) -> Manifest:
    """A job of one worker and few steps."""
    return {
        "apiVersion": "dtjob.dev/v1alpha1",
        "kind": "DistributedTrainingJob",
        "metadata": {"name": _JOB},
        "spec": {
            "image": image,
            "workers": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}},
            "training": {
                "entrypoint": "dtjob_trainer.tasks.digits:task",
                "steps": 20,
                "batchSize": 256,
                "optimizer": {"name": "sgd", "learningRate": 4.0},
            },
            "privacy": {"epsilon": 8, "delta": 1e-5, "maxGradNorm": 1.0, "datasetSize": 1437},
            "storage": {"checkpoints": {"size": "16Mi"}},
        },
    }


@dataclass
class Watched:
    """One case's job as it was seen.

    Attributes
    ----------
    told
        The job when it first had the expected reason and words, or the reason alone so far; {} if
        it never had.
    described
        What `kubectl describe` showed then.
    complete
        Whether all was told that the case expects.
    went_on
        Whether the reason went and a worker ran after the remedy.
    """

    case: dict[str, Any]
    kubectl: Kubectl
    created: datetime
    job: Manifest = field(default_factory=dict)
    told: Manifest = field(default_factory=dict)
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
        """Take note of how the job is, and mend it as soon as it has said what is wrong."""
        self.job = job
        says = self.reason in {condition(job, kind).get("reason") for kind in ("Running", "Failed")}
        if says and not self.complete:
            self.told, self.described = job, self.kubectl("describe", "dtjob", _JOB)
            self.complete = not self.missing()
            if self.complete and (remedy := self.case.get("remedy")):
                self.kubectl.apply(*remedy)
        running = any(pod["status"].get("phase") == "Running" for pod in pods)
        self.went_on = self.complete and running and not says

    def missing(self) -> list[str]:
        """Of the words that the case expects, those that were not told, each with its place."""
        ((reason, words),) = self.case["expect"].items()
        found = condition(self.told, "Failed") or condition(self.told, "Running")
        conditions, _, events = self.described.partition("\nEvents:")
        places = [("reason", reason, found["reason"]), ("events", reason, events)]
        places += [("conditions", word, conditions) for word in (reason, *words)]
        places += [("message", word, found["message"]) for word in words]
        return [f"{place}: {word}" for place, word, text in places if word not in text]

    def outcome_written(self) -> datetime | None:
        """When the API server took the ledger's outcome; the worker's own time if it is not told.

        The worker takes its time before it writes, and may wait for the API server.
        """
        for ledger in self.kubectl.list("privacyledgers", "--show-managed-fields"):
            if outcome := ledger.get("status", {}).get("outcome"):
                written = [
                    entry["time"]
                    for entry in ledger["metadata"].get("managedFields", [])
                    if "f:outcome" in entry.get("fieldsV1", {}).get("f:status", {})
                ]
                return datetime.fromisoformat(min(written, default=outcome["time"]))
        return None

    def first_told(self, kind: str | None, reasons: Collection[str]) -> datetime:
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


@pytest.fixture(scope="module")
def surroundings(installed: Installed) -> dict[str, str]:
    """What the cases name of this cluster."""
    operator = installed.system.get("deployment", "dtjob-operator")
    assert operator
    default = next(
        each
        for each in installed.system.list("storageclasses")
        if "storageclass.kubernetes.io/is-default-class" in each["metadata"].get("annotations", {})
    )
    image = installed.trainer_image
    name = image.partition("@")[0]
    return {
        "image": image,
        "repository": name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name,
        "operator": operator["spec"]["template"]["spec"]["containers"][0]["image"],
        "node": installed.system.list("nodes")[0]["metadata"]["name"],
        "provisioner": default["provisioner"],
    }


@pytest.fixture(scope="module")
def applied(
    surroundings: dict[str, str], new_namespace: Callable[[], Kubectl]
) -> Iterator[dict[str, Watched]]:
    """All jobs, applied at once, and what belongs to the cluster removed in the end."""
    watched = {}
    for template in CASES:
        kubectl = new_namespace()
        case = filled_in(template, namespace=kubectl.namespace, **surroundings)
        if given := case.get("given"):
            kubectl.apply(*given)
        job = merged(small_job(surroundings["image"]), {"spec": case.get("spec", {})})
        job["metadata"]["labels"] = {_LABEL: "bad-input"}
        kubectl.apply(job)
        watched[case["name"]] = Watched(case, kubectl, datetime.now(UTC))
    yield watched
    for each in watched.values():
        each.kubectl("delete", "dtjob", "--all", "--wait=false")
        own = f"storageclass/{each.kubectl.namespace}", f"pv/{each.kubectl.namespace}"
        each.kubectl("delete", *own, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def seen(applied: dict[str, Watched]) -> dict[str, Watched]:
    """All jobs, once each has said what is wrong and gone on, or has had time enough."""
    waiting = dict(applied)
    some = next(iter(applied.values())).kubectl
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        jobs = some.list("dtjobs", "--all-namespaces", f"--selector={_LABEL}=bad-input")
        pods = some.list("pods", "--all-namespaces", f"--selector=dtjob.dev/job={_JOB}")
        by_namespace = {job["metadata"]["namespace"]: job for job in jobs}
        for name, each in list(waiting.items()):
            own = [p for p in pods if p["metadata"]["namespace"] == each.kubectl.namespace]
            each.look(by_namespace[each.kubectl.namespace], own)
            if each.went_on:
                # It need not train on the machine that the others share.
                each.kubectl("delete", "dtjob", _JOB, "--wait=false")
            if each.done:
                del waiting[name]
        time.sleep(_POLL_SECONDS)
    return applied


@by_name
def test_a_condition_says_what_where_and_the_remedy(seen: dict[str, Watched], name: str) -> None:
    watched = seen[name]
    assert watched.told, json.dumps(watched.job.get("status"), indent=1)
    assert watched.missing() == [], watched.described


@by_name
def test_it_is_told_in_time(seen: dict[str, Watched], name: str) -> None:
    watched = seen[name]
    assert watched.told, json.dumps(watched.job.get("status"), indent=1)
    since, allowed = watched.created, watched.case.get("within", SEEN_SECONDS)
    if fact := watched.case.get("fact"):
        since = watched.first_told(None, fact)
    if written := watched.outcome_written():
        since, allowed = written, OUTCOME_SECONDS
    # The operator records its event just before it writes the condition.
    at = watched.first_told("DistributedTrainingJob", {watched.reason})
    took = standstill.ran(since.timestamp(), at.timestamp())
    assert took <= allowed + _ROUNDING_SECONDS


@mendable
def test_the_job_goes_on_when_it_is_mended(seen: dict[str, Watched], name: str) -> None:
    watched = seen[name]
    assert watched.went_on, json.dumps(watched.job.get("status"), indent=1)


def test_a_corrected_job_replaces_the_bad_one(
    seen: dict[str, Watched], installed: Installed
) -> None:
    kubectl = seen["image that does not exist"].kubectl
    corrected = small_job(installed.trainer_image)
    refused = kubectl("apply", "--filename=-", stdin=json.dumps(corrected), fails=True)
    assert "spec.image" in refused
    kubectl("delete", "dtjob", _JOB)
    kubectl.apply(corrected)

    def succeeded(job: Manifest) -> bool:
        return condition(job, "Succeeded").get("status") == "True"

    kubectl.wait("dtjob", _JOB, succeeded, timeout=_PATIENCE_SECONDS)


@pytest.mark.parametrize("kind", ["Service", "StatefulSet"])
def test_a_foreign_object_of_a_childs_name_is_left_alone(
    namespace: Kubectl, installed: Installed, kind: str
) -> None:
    # Without an account no child follows, so that another's object can come first.
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "accounts"}}
    namespace.apply(quota | {"spec": {"hard": {"count/serviceaccounts": "0"}}})
    namespace.apply(small_job(installed.trainer_image))

    def blocked_by(reason: str) -> Callable[[Manifest], bool]:
        def blocked(job: Manifest) -> bool:
            return condition(job, "Running").get("reason") == reason

        return blocked

    job = namespace.wait("dtjob", _JOB, blocked_by("PodsRefused"), timeout=120)
    message = condition(job, "Running")["message"]
    assert "ServiceAccount dtjob-worker" in message
    assert "exceeded quota: accounts" in message

    foreign = foreign_object(kind, f"{_JOB}-{job['metadata']['uid'][:8]}")
    namespace.apply(foreign)
    namespace("delete", "resourcequota", "accounts")
    # By then the refused child is tried again only every 15 s.
    job = namespace.wait("dtjob", _JOB, blocked_by("NameConflict"), timeout=60)
    message = condition(job, "Running")["message"]
    assert f"{kind} {foreign['metadata']['name']} in namespace {namespace.namespace}" in message
    assert "delete it" in message

    def in_an_event() -> bool:
        return "NameConflict" in namespace("describe", "dtjob", _JOB).partition("\nEvents:")[2]

    wait_for("an event says so", in_an_event, timeout=60)
    found = namespace.get(kind, foreign["metadata"]["name"])
    assert found
    assert "ownerReferences" not in found["metadata"], "it is another's"

    namespace("delete", kind, foreign["metadata"]["name"])
    wait_for("a worker", lambda: namespace.list("pods"), timeout=120)
    namespace("delete", "dtjob", _JOB)


def foreign_object(kind: str, name: str) -> Manifest:
    """Someone else's object."""
    labels = {"app": "another"}
    if kind == "Service":
        spec: Manifest = {"selector": labels, "ports": [{"port": 80}]}
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "another", "image": "localhost/another"}]},
    }
    spec = {
        "replicas": 0,
        "serviceName": name,
        "selector": {"matchLabels": labels},
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
