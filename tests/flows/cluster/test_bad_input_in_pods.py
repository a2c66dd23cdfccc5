"""What a user gets wrong is told with the remedy, and what is mended goes on.

All jobs of bad_input.yaml are applied at once, each in a namespace of its own; then all remedies.
Their workers are stand-ins: none of these mistakes is one of the training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.jobs.bad_jobs import CASES, JOB, Watched, all_watched, condition, small_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OURS = [case for case in CASES if not case.get("trains")]
by_name = pytest.mark.parametrize("name", [case["name"] for case in OURS])
mendable = pytest.mark.parametrize("name", [c["name"] for c in OURS if "remedy" in c])

_ENTRYPOINT = "standin.script:task"
_PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def seen(standins: Installed, new_namespace: Callable[[], Kubectl]) -> Iterator[dict[str, Watched]]:
    """All jobs, once each has said what is wrong and gone on, or has had time enough."""
    with all_watched(OURS, standins, new_namespace, _ENTRYPOINT, _PATIENCE_SECONDS) as watched:
        yield watched


@pytest.mark.alone
def test_all_are_watched(seen: dict[str, Watched]) -> None:
    """When each was told is judged below."""
    assert [name for name, each in seen.items() if not each.job] == []


@by_name
def test_a_condition_says_what_where_and_the_remedy(seen: dict[str, Watched], name: str) -> None:
    seen[name].assert_reported()


@by_name
def test_it_is_reported_in_time(seen: dict[str, Watched], name: str) -> None:
    seen[name].assert_reported_in_time()


@mendable
def test_the_job_goes_on_when_it_is_mended(seen: dict[str, Watched], name: str) -> None:
    watched = seen[name]
    assert watched.went_on, json.dumps(watched.job.get("status"), indent=1)


def test_a_corrected_job_replaces_the_bad_one(
    seen: dict[str, Watched], standins: Installed
) -> None:
    kubectl = seen["image that does not exist"].kubectl
    corrected = small_job(standins.worker_image, _ENTRYPOINT)
    refused = kubectl("apply", "--filename=-", stdin=json.dumps(corrected), fails=True)
    assert "spec.image" in refused
    kubectl("delete", "dtjob", JOB)
    kubectl.apply(corrected)

    def succeeded(job: Manifest) -> bool:
        return condition(job, "Succeeded").get("status") == "True"

    kubectl.wait("dtjob", JOB, succeeded, timeout=_PATIENCE_SECONDS)


@pytest.mark.parametrize("kind", ["Service", "StatefulSet"])
def test_a_foreign_object_of_a_childs_name_is_left_alone(
    namespace: Kubectl, standins: Installed, kind: str
) -> None:
    # Without an account no child follows, so that another's object can come first.
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "accounts"}}
    namespace.apply(quota | {"spec": {"hard": {"count/serviceaccounts": "0"}}})
    namespace.apply(small_job(standins.worker_image, _ENTRYPOINT))

    def blocked_by(reason: str) -> Callable[[Manifest], bool]:
        def blocked(job: Manifest) -> bool:
            return condition(job, "Running").get("reason") == reason

        return blocked

    job = namespace.wait("dtjob", JOB, blocked_by("PodsRefused"), timeout=120)
    message = condition(job, "Running")["message"]
    assert "ServiceAccount dtjob-worker" in message
    assert "exceeded quota: accounts" in message

    foreign = foreign_object(kind, f"{JOB}-{job['metadata']['uid'][:8]}")
    namespace.apply(foreign)
    namespace("delete", "resourcequota", "accounts")
    # By then the refused child is tried again only every 15 s.
    job = namespace.wait("dtjob", JOB, blocked_by("NameConflict"), timeout=60)
    message = condition(job, "Running")["message"]
    assert f"{kind} {foreign['metadata']['name']} in namespace {namespace.namespace}" in message
    assert "delete it" in message

    def in_an_event() -> bool:
        return "NameConflict" in namespace("describe", "dtjob", JOB).partition("\nEvents:")[2]

    wait_for("an event says so", in_an_event, timeout=60)
    found = namespace.get(kind, foreign["metadata"]["name"])
    assert found
    assert "ownerReferences" not in found["metadata"], "it is another's"

    namespace("delete", kind, foreign["metadata"]["name"])
    wait_for("a worker", lambda: namespace.list("pods"), timeout=120)
    namespace("delete", "dtjob", JOB)


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
