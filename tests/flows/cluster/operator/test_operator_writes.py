"""What the operator's account may write, tried in its name: its jobs' objects and no other."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dtjob_operator.terms import names
from dtjob_operator.terms.kinds import JOB_UID_LABEL
from tests.support.builders import UID
from tests.support.clusters import operator_account
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_account import DRY, OPERATOR, REFUSED, changed, write
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

StoredJob = Callable[[Manifest], Manifest]
Change = Callable[[Manifest], None]
KINDS = ("statefulset", "service", "networkpolicy", "poddisruptionbudget")


def child(kubectl: Kubectl, kind: str) -> Manifest:
    """One of a job in that namespace that there may have been."""
    return operator_account.children(operator_account.job(kubectl.namespace))[kind]


def no_owner(child: Manifest) -> None:
    del child["metadata"]["ownerReferences"]


def no_label(child: Manifest) -> None:
    del child["metadata"]["labels"][JOB_UID_LABEL]


def no_labels(child: Manifest) -> None:
    del child["metadata"]["labels"]


def no_controller(child: Manifest) -> None:
    child["metadata"]["ownerReferences"][0]["controller"] = False


def another_kind(child: Manifest) -> None:
    child["metadata"]["ownerReferences"][0] |= {"apiVersion": "apps/v1", "kind": "Deployment"}


def another_group(child: Manifest) -> None:
    child["metadata"]["ownerReferences"][0]["apiVersion"] = "dtjob.dev.example/v1"


def another_job(child: Manifest) -> None:
    child["metadata"]["ownerReferences"][0]["uid"] = UID.replace("0a", "1b")


@pytest.fixture(scope="module", autouse=True)
def in_force(installed: Kubectl, new_namespace: Callable[[], Kubectl]) -> None:
    operator_account.wait_until_in_force(new_namespace())


@pytest.mark.parametrize("kind", KINDS)
def test_a_jobs_child_is_made_only_as_that(namespace: Kubectl, kind: str) -> None:
    own = child(namespace, kind)
    write(namespace, own)
    changes: tuple[Change, ...] = (
        no_owner,
        no_label,
        no_labels,
        no_controller,
        another_kind,
        another_group,
        another_job,
    )
    for change in changes:
        refused = write(namespace, changed(own, change), fails=True)
        assert f"{REFUSED}object but those of its jobs" in refused


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_jobs_is_not_changed(namespace: Kubectl, kind: str) -> None:
    """Nor taken over, by giving it an owner and a label."""
    own = child(namespace, kind)
    namespace.apply(changed(changed(own, no_labels), no_owner))
    name = own["metadata"]["name"]
    for metadata in ({"annotations": {"a": "b"}}, own["metadata"]):
        patch = json.dumps({"metadata": metadata})
        change = ("patch", kind, name, "--type=merge", f"--patch={patch}", DRY, OPERATOR)
        assert REFUSED in namespace(*change, fails=True)
    if kind == "networkpolicy":
        assert REFUSED in namespace("delete", kind, name, DRY, OPERATOR, fails=True)
    # Without its owner, which is not there: the garbage collector would take it.
    label = json.dumps({"metadata": {"labels": own["metadata"]["labels"]}})
    namespace("patch", kind, name, "--type=merge", f"--patch={label}")
    repair = json.dumps({"metadata": {"ownerReferences": own["metadata"]["ownerReferences"]}})
    namespace("patch", kind, name, "--type=merge", f"--patch={repair}", DRY, OPERATOR)
    thief = child(namespace, kind)["metadata"]
    thief["labels"][JOB_UID_LABEL] = thief["ownerReferences"][0]["uid"] = UID.replace("0a", "1b")
    stolen = json.dumps({"metadata": thief})
    change = ("patch", kind, name, "--type=merge", f"--patch={stolen}", DRY, OPERATOR)
    assert REFUSED in namespace(*change, fails=True)


@pytest.mark.parametrize("kind", ["serviceaccount", "rolebinding"])
def test_what_another_made_for_workers_is_left_alone(namespace: Kubectl, kind: str) -> None:
    own = operator_account.shared(namespace.namespace)[kind]
    write(namespace, own)
    unlabelled = changed(own, no_labels)
    assert f"{REFUSED}account and no binding" in write(namespace, unlabelled, fails=True)
    namespace.apply(unlabelled)
    assert REFUSED in write(namespace, own, fails=True), "a platform team prepared it"
    if kind == "rolebinding":
        of = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.namespace}/rolebindings"
        gone = ("delete", "--raw", f"{of}/dtjob-worker?dryRun=All", OPERATOR)
        assert REFUSED in namespace(*gone, fails=True)
        label = json.dumps({"metadata": {"labels": names.shared_labels()}})
        namespace("patch", kind, "dtjob-worker", "--type=merge", f"--patch={label}")
        namespace(*gone)


def test_other_writes_are_about_jobs_too(namespace: Kubectl, installed: Kubectl) -> None:
    about = {"kind": "Pod", "namespace": namespace.namespace, "name": "x"}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "x.1"}}
    event |= {"involvedObject": about, "reason": "x", "message": "x", "type": "Normal"}
    assert f"{REFUSED}events but" in write(namespace, event, fails=True)
    write(namespace, event | {"involvedObject": about | {"kind": "DistributedTrainingJob"}})
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "x"}}
    create = ("create", "--filename=-", DRY, OPERATOR)
    told = installed(*create, stdin=json.dumps(lease), fails=True)
    assert f"{REFUSED}Lease but its own" in told
    canary = installed.get("privacyledger", "dtjob-canary")
    if canary is not None:
        spec = {key: canary[key] for key in ("apiVersion", "kind", "spec")}
        stray = spec | {"metadata": {"name": "stray", "labels": names.shared_labels()}}
        assert f"{REFUSED}ledger that lacks" in namespace(
            *create, stdin=json.dumps(stray), fails=True
        )


def test_others_write_what_they_like(namespace: Kubectl) -> None:
    """An administrator holds every verb, plan among them."""
    stranger = changed(child(namespace, "service"), no_owner)
    namespace("create", "--filename=-", DRY, stdin=json.dumps(stranger))


def test_the_life_of_a_job_passes(
    operator: OperatorProcess, namespace: Kubectl, stored_job: StoredJob
) -> None:
    """Made, repaired where somebody took its owner away, and without its policy on demand."""
    stored = stored_job(unplaced_job("digits"))
    name = child_name(stored)

    def phase() -> bool:
        found = (namespace.get("dtjob", "digits") or {}).get("status", {})
        return bool(found.get("phase") == "Starting")

    wait_for("it starts", phase, 120)
    for kind in KINDS:
        namespace(
            "patch", kind, name, "--type=merge", '--patch={"metadata":{"ownerReferences":[]}}'
        )

        def owned_again(kind: str = kind) -> bool:
            found = namespace.get(kind, name)
            return bool(found and found["metadata"].get("ownerReferences"))

        wait_for(f"the {kind} has its owner again", owned_again, 30)
    change = '--patch={"spec":{"network":{"policy":"None"}}}'
    namespace("patch", "dtjob", "digits", "--type=merge", change)
    wait_for("no policy", lambda: namespace.get("networkpolicy", name) is None, 60)
    namespace("delete", "rolebinding", "dtjob-worker")
    wait_for("the binding is back", lambda: namespace.get("rolebinding", "dtjob-worker"), 30)


def test_a_job_beside_the_operator_says_that_it_is_in_the_wrong_place(
    operator: OperatorProcess, installed: Kubectl
) -> None:
    installed.apply(unplaced_job("misplaced"))
    try:

        def message() -> str | None:
            status = (installed.get("dtjob", "misplaced") or {}).get("status", {})
            found = {each["type"]: each for each in status.get("conditions", [])}
            refused = found.get("ResourcesReady", {})
            return refused["message"] if refused.get("reason") == "PodsRefused" else None

        said = wait_for("it is refused", message, 120)
        assert (
            "metadata.namespace: the dtjob operator makes nothing of a job in kube-system" in said
        )
        assert "Make the job in another namespace" in said
    finally:
        installed("delete", "dtjob", "misplaced")
    for kind in ("statefulsets", "services", "rolebindings", "networkpolicies"):
        names = [each["metadata"]["name"] for each in installed.list(kind)]
        assert not [name for name in names if name.startswith(("misplaced", "dtjob-worker"))]
