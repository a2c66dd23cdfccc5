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
from installed import Installed
from kube import Kubectl, Manifest, wait_for
from ruamel.yaml import YAML

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CASES = YAML(typ="safe").load(Path(__file__).with_name("bad_input.yaml").read_text())
by_name = pytest.mark.parametrize("name", [case["name"] for case in CASES])
mendable = pytest.mark.parametrize("name", [c["name"] for c in CASES if "remedy" in c])

SEEN_SECONDS = 15.0
"""From the cluster's first word of a trouble to the job's condition."""
OUTCOME_SECONDS = 2.0
"""From the ledger's outcome to the job's condition."""
_POLL_SECONDS = 0.3
_ROUNDING_SECONDS = 1.0  # of an Event's times
_PATIENCE_SECONDS = 150  # for three imports of torch at a time on two cores
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
        The job when it first had the expected reason, {} if it never had.
    went_on
        Whether the reason went and a worker ran after the remedy.
    """

    case: dict[str, Any]
    kubectl: Kubectl
    created: datetime
    job: Manifest = field(default_factory=dict)
    told: Manifest = field(default_factory=dict)
    went_on: bool = False

    @property
    def reason(self) -> str:
        """The reason that the case expects."""
        (reason,) = self.case["expect"]
        return str(reason)

    def says(self) -> bool:
        """Whether the job has the expected reason now."""
        return self.reason in {
            condition(self.job, kind).get("reason") for kind in ("Running", "Failed")
        }

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
        for kind in ("storageclass", "persistentvolume"):
            each.kubectl(
                "delete", kind, each.kubectl.namespace, "--ignore-not-found", "--wait=false"
            )


def look(watched: dict[str, Watched]) -> None:
    """See how all the jobs are, in one request."""
    some = next(iter(watched.values())).kubectl
    arguments = ("--all-namespaces", f"--selector={_LABEL}=bad-input")
    jobs = {job["metadata"]["namespace"]: job for job in some.list("dtjobs", *arguments)}
    for each in watched.values():
        each.job = jobs.get(each.kubectl.namespace, {})
        if not each.told and each.says():
            each.told = each.job


@pytest.fixture(scope="module")
def told(applied: dict[str, Watched]) -> dict[str, Watched]:
    """All jobs, once each has said what is wrong, or has had time enough."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not all(each.told for each in applied.values()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        look(applied)
    return applied


@by_name
def test_a_condition_says_what_where_and_the_remedy(told: dict[str, Watched], name: str) -> None:
    watched = told[name]
    assert watched.told, json.dumps(watched.job.get("status"), indent=1)
    job = watched.told
    ((reason, words),) = watched.case["expect"].items()
    failed = condition(job, "Failed")
    for found in [failed] if failed else [condition(job, t) for t in ("ResourcesReady", "Running")]:
        assert found["reason"] == reason
        for word in words:
            assert word in found["message"]
    described = watched.kubectl("describe", "dtjob", _JOB)
    conditions, _, events = described.partition("\nEvents:")
    assert reason in conditions
    assert reason in events
    assert all(word in described for word in words)


@by_name
def test_it_is_told_in_time(told: dict[str, Watched], name: str) -> None:
    watched = told[name]
    assert watched.told, json.dumps(watched.job.get("status"), indent=1)
    since, allowed = watched.created, SEEN_SECONDS
    if fact := watched.case.get("fact"):
        since = watched.first_told(None, fact)
    for ledger in watched.kubectl.list("privacyledgers"):
        if outcome := ledger.get("status", {}).get("outcome"):
            since, allowed = datetime.fromisoformat(outcome["time"]), OUTCOME_SECONDS
    # The operator records its event just before it writes the condition.
    at = watched.first_told("DistributedTrainingJob", {watched.reason})
    assert (at - since).total_seconds() <= allowed + _ROUNDING_SECONDS


@pytest.fixture(scope="module")
def mended(told: dict[str, Watched]) -> dict[str, Watched]:
    """All jobs that can be mended, after their remedies were made at once."""
    waiting = {name: each for name, each in told.items() if "remedy" in each.case}
    for each in waiting.values():
        each.kubectl.apply(*each.case["remedy"])
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        look(waiting)
        for name, each in list(waiting.items()):
            pods = each.kubectl.list("pods")
            running = any(pod["status"].get("phase") == "Running" for pod in pods)
            each.went_on = running and not each.says()
            if each.went_on:
                del waiting[name]
                # Seen; it need not train on the machine that the others share.
                each.kubectl("delete", "dtjob", _JOB, "--wait=false")
        time.sleep(_POLL_SECONDS)
    return told


@mendable
def test_the_job_goes_on_when_it_is_mended(mended: dict[str, Watched], name: str) -> None:
    watched = mended[name]
    assert watched.went_on, json.dumps(watched.job.get("status"), indent=1)


def test_a_corrected_job_replaces_the_bad_one(
    told: dict[str, Watched], installed: Installed
) -> None:
    kubectl = told["image that does not exist"].kubectl
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

    job = namespace.wait("dtjob", _JOB, blocked_by("PodsRefused"), timeout=30)
    message = condition(job, "Running")["message"]
    assert "ServiceAccount dtjob-worker" in message
    assert "exceeded quota: accounts" in message

    foreign = foreign_object(kind, f"{_JOB}-{job['metadata']['uid'][:8]}")
    namespace.apply(foreign)
    namespace("delete", "resourcequota", "accounts")
    job = namespace.wait("dtjob", _JOB, blocked_by("NameConflict"), timeout=SEEN_SECONDS)
    message = condition(job, "Running")["message"]
    assert f"{kind} {foreign['metadata']['name']} in namespace {namespace.namespace}" in message
    assert "delete it" in message
    assert "NameConflict" in namespace("describe", "dtjob", _JOB).partition("\nEvents:")[2]
    found = namespace.get(kind, foreign["metadata"]["name"])
    assert found
    assert "ownerReferences" not in found["metadata"], "it is another's"

    namespace("delete", kind, foreign["metadata"]["name"])
    wait_for("a worker", lambda: namespace.list("pods"), timeout=30)
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
