"""What may stand in the objects that the operator's account writes, tried in its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dtjob_operator.terms.kinds import JOB_UID_LABEL
from tests.support.builders import UID
from tests.support.clusters import operator_account
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_account import DRY, OPERATOR, REFUSED, changed, write
from tests.support.worlds import children_files

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

Change = Callable[[Manifest], None]
OTHER = UID.replace("0a", "1b")
NO_ESCALATION: Manifest = {"allowPrivilegeEscalation": False}
HEADLESS = f"spec.clusterIP: {REFUSED}Service but a headless one"
OF_OTHERS = f"spec.externalIPs, spec.externalName: {REFUSED}Service with addresses of others"
SUBJECTS = f"subjects: {REFUSED}binding but of the one ServiceAccount dtjob-worker"
ROLE = f"roleRef: {REFUSED}binding but to ClusterRole dtjob-worker"
VOLUMES = f": {REFUSED}volumes but emptyDir, projected"
PRIVILEGED = f".securityContext: {REFUSED}container that is privileged"
OF_NODE = f": {REFUSED}pods that share the network or the processes of their node"
PLACE = "metadata.namespace: the dtjob operator makes nothing of a job in kube-system or in its own"
WORKER, OTHERS = "spec.template.spec.containers[worker]", "spec.template.spec.containers[other]"
ACCOUNT: Manifest = {"kind": "ServiceAccount", "name": "dtjob-worker", "namespace": "default"}


def spec(**fields: Any) -> Change:
    return lambda child: child["spec"].update(fields)


def pod(**fields: Any) -> Change:
    return lambda child: child["spec"]["template"]["spec"].update(fields)


def container(**fields: Any) -> Change:
    return lambda child: child["spec"]["template"]["spec"]["containers"][0].update(fields)


def beside(place: str, **fields: Any) -> Change:
    other = {"name": "other", "image": "other"} | fields
    return lambda child: child["spec"]["template"]["spec"].setdefault(place, []).append(other)


def volume(**source: Any) -> Change:
    given = {"name": "other"} | source
    return lambda child: child["spec"]["template"]["spec"]["volumes"].append(given)


def top(**fields: Any) -> Change:
    return lambda child: child.update(fields)


def of_another_job(child: Manifest) -> None:
    """Its StatefulSet would take over that job's pods."""
    for labels in (
        child["spec"]["selector"]["matchLabels"],
        child["spec"]["template"]["metadata"]["labels"],
    ):
        labels[JOB_UID_LABEL] = OTHER


def of_no_job(child: Manifest) -> None:
    for labels in (
        child["spec"]["selector"]["matchLabels"],
        child["spec"]["template"]["metadata"]["labels"],
    ):
        del labels[JOB_UID_LABEL]


def of_two_jobs(child: Manifest) -> None:
    child["spec"]["template"]["metadata"]["labels"][JOB_UID_LABEL] = OTHER


def of_other_labels(child: Manifest) -> None:
    """The job's own word stands in the template alone: the API server asks for less."""
    del child["spec"]["selector"]["matchLabels"][JOB_UID_LABEL]


def selector_of(*path: str) -> Change:
    def change(child: Manifest) -> None:
        found = child["spec"]
        for field in path:
            found = found[field]
        found[JOB_UID_LABEL] = OTHER

    return change


def selects_all(field: str) -> Change:
    return spec(**{field: {}})


SELECTOR = f"{REFUSED}selector but of pods of the job that owns it"
SHAPES: dict[str, tuple[str, Change, str]] = {
    "pods of another job": (
        "statefulset",
        of_another_job,
        f"spec.selector.matchLabels: {SELECTOR}",
    ),
    "pods of no job": ("statefulset", of_no_job, f"spec.selector.matchLabels: {SELECTOR}"),
    "template of another job": (
        "statefulset",
        of_two_jobs,
        "spec.template.metadata.labels: Invalid value",
    ),
    "pods by other labels": (
        "statefulset",
        of_other_labels,
        f"spec.selector.matchLabels: {SELECTOR}",
    ),
    "hostNetwork": (
        "statefulset",
        pod(hostNetwork=True),
        f"spec.template.spec.hostNetwork{OF_NODE}",
    ),
    "hostPID": ("statefulset", pod(hostPID=True), f"spec.template.spec.hostPID{OF_NODE}"),
    "hostIPC": ("statefulset/-w", pod(hostIPC=True), f"spec.template.spec.hostIPC{OF_NODE}"),
    "hostPath": (
        "statefulset",
        volume(hostPath={"path": "/"}),
        f"spec.template.spec.volumes[other]{VOLUMES}",
    ),
    "nfs": (
        "statefulset",
        volume(nfs={"server": "192.0.2.1", "path": "/"}),
        f"spec.template.spec.volumes[other]{VOLUMES}",
    ),
    "csi": (
        "statefulset/-w",
        volume(csi={"driver": "other.example"}),
        f"spec.template.spec.volumes[other]{VOLUMES}",
    ),
    "privileged": (
        "statefulset",
        container(securityContext={"privileged": True}),
        f"{WORKER}{PRIVILEGED}",
    ),
    "escalation": (
        "statefulset",
        container(securityContext={"allowPrivilegeEscalation": True}),
        f"{WORKER}{PRIVILEGED}",
    ),
    "escalation by default": (
        "statefulset",
        container(securityContext={}),
        f"{WORKER}{PRIVILEGED}",
    ),
    "capability": (
        "statefulset",
        container(securityContext=NO_ESCALATION | {"capabilities": {"add": ["NET_RAW"]}}),
        f"{WORKER}{PRIVILEGED}",
    ),
    "second container": ("statefulset", beside("containers"), f"{OTHERS}{PRIVILEGED}"),
    "init container": ("statefulset/-w", beside("initContainers"), f"{OTHERS}{PRIVILEGED}"),
    "hostPort": (
        "statefulset",
        beside(
            "containers",
            securityContext=NO_ESCALATION,
            ports=[{"containerPort": 7, "hostPort": 7}],
        ),
        f"{OTHERS}.ports: {REFUSED}container with a hostPort",
    ),
    "address of its own": ("service", lambda child: child["spec"].pop("clusterIP"), HEADLESS),
    "NodePort": ("service", spec(type="NodePort", clusterIP=""), HEADLESS),
    "LoadBalancer": ("service", spec(type="LoadBalancer", clusterIP=""), HEADLESS),
    "ExternalName": (
        "service",
        spec(type="ExternalName", clusterIP="", externalName="other.example"),
        HEADLESS,
    ),
    "externalName": ("service", spec(externalName="other.example"), OF_OTHERS),
    "externalIPs": ("service", spec(externalIPs=["192.0.2.1"]), OF_OTHERS),
    "Service of another job": ("service", selector_of("selector"), f"spec.selector: {SELECTOR}"),
    "Service of no pods": (
        "service",
        lambda child: child["spec"].pop("selector"),
        f"spec.selector: {SELECTOR}",
    ),
    "policy of another job": (
        "networkpolicy",
        selector_of("podSelector", "matchLabels"),
        f"spec.podSelector.matchLabels: {SELECTOR}",
    ),
    "policy of all pods": (
        "networkpolicy",
        selects_all("podSelector"),
        f"spec.podSelector.matchLabels: {SELECTOR}",
    ),
    "budget of all pods": (
        "poddisruptionbudget",
        selects_all("selector"),
        f"spec.selector.matchLabels: {SELECTOR}",
    ),
    "autoscaler of a Deployment": (
        "horizontalpodautoscaler",
        spec(scaleTargetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}),
        f"spec.scaleTargetRef: {REFUSED}autoscaler but of the job that owns it",
    ),
    "autoscaler of another job": (
        "horizontalpodautoscaler",
        lambda child: child["spec"]["scaleTargetRef"].update(name="other"),
        f"spec.scaleTargetRef: {REFUSED}autoscaler but of the job that owns it",
    ),
    "binding of another account": (
        "rolebinding",
        lambda child: child["subjects"][0].update(name="other"),
        SUBJECTS,
    ),
    "binding of another namespace's account": ("rolebinding", top(subjects=[ACCOUNT]), SUBJECTS),
    "binding of a second account": (
        "rolebinding",
        lambda child: child["subjects"].append(ACCOUNT),
        SUBJECTS,
    ),
    "binding of a group": (
        "rolebinding",
        top(
            subjects=[
                {
                    "kind": "Group",
                    "apiGroup": "rbac.authorization.k8s.io",
                    "name": "system:authenticated",
                }
            ]
        ),
        SUBJECTS,
    ),
    "binding of nobody": ("rolebinding", top(subjects=[]), SUBJECTS),
    "binding to another role": (
        "rolebinding",
        lambda child: child["roleRef"].update(name="dtjob-view"),
        ROLE,
    ),
    "binding to a Role": (
        "rolebinding",
        lambda child: child["roleRef"].update(kind="Role"),
        ROLE,
    ),
}


@pytest.fixture(scope="module")
def home(installed: Kubectl, new_namespace: Callable[[], Kubectl]) -> Kubectl:
    """A namespace where the policy is in force, and RBAC lets the operator bind every role.

    So that it is the policy that refuses a binding.
    """
    home = new_namespace()
    operator_account.wait_until_in_force(home)
    home("create", "role", "bind", "--verb=bind", "--resource=clusterroles,roles")
    account = "--serviceaccount=dtjob-system:dtjob-operator"
    home("create", "rolebinding", "bind", "--role=bind", account)
    return home


def made(kubectl: Kubectl, **job: Any) -> dict[str, Manifest]:
    of = operator_account.job(kubectl.namespace, **job)
    return operator_account.children(of) | operator_account.shared(kubectl.namespace)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_reaches_beyond_a_job_is_refused(home: Kubectl, shape: str) -> None:
    kind, change, message = SHAPES[shape]
    assert message in write(home, changed(made(home)[kind], change), fails=True)


@pytest.mark.parametrize("folder", children_files.FOLDERS, ids=lambda folder: folder.name)
def test_what_the_operator_makes_passes(home: Kubectl, folder: Any) -> None:
    """With all that a job can ask for."""
    for child in children_files.read(folder / "wanted.yaml").values():
        child["metadata"]["namespace"] = home.namespace
        for subject in child.get("subjects", ()):
            subject["namespace"] = home.namespace
        write(home, child)


def test_the_greatest_job_passes(home: Kubectl) -> None:
    """Made, scaled and with another template: the cost of the expressions stays in its bounds."""
    most: Manifest = {
        "env": [{"name": f"V{i}", "value": "x" * 8192} for i in range(64)],
        "envFrom": [{"secretRef": {"name": f"s{i}"}} for i in range(16)],
        "volumes": [
            {"name": f"v{i}", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}] * 64}}
            for i in range(32)
        ],
        "volumeMounts": [{"name": f"v{i}", "mountPath": f"/mnt/{i}"} for i in range(32)],
    }
    child = made(home, workers={"replicas": 2, "template": most})["statefulset/-w"]
    write(home, child)
    # Without its owner, which is not there: the garbage collector would take it.
    home.create(changed(changed(child, spec(replicas=0)), unowned))
    write(home, child)
    write(home, changed(child, container(image="other")))


def unowned(child: Manifest) -> None:
    del child["metadata"]["ownerReferences"]


@pytest.mark.parametrize("place", ["volumes", "containers", "initContainers"])
def test_no_number_of_others_hides_one(home: Kubectl, place: str) -> None:
    child = made(home)["statefulset"]
    within, of = child["spec"]["template"]["spec"], place.removeprefix("init").lower()
    good: Manifest = {"image": "x", "securityContext": NO_ESCALATION}
    bad: Manifest = {"image": "x"}
    if place == "volumes":
        good, bad = {"emptyDir": {}}, {"hostPath": {"path": "/"}}
    within.setdefault(place, []).extend({"name": f"n{i}"} | good for i in range(4000))
    write(home, child)
    within[place].append({"name": "other"} | bad)
    assert f"spec.template.spec.{of}[other]" in write(home, child, fails=True)


@pytest.mark.parametrize("where", ["kube-system", "dtjob-system"])
@pytest.mark.parametrize("kind", operator_account.KINDS)
def test_nothing_of_a_job_is_made_beside_the_clusters_own_accounts(
    home: Kubectl, where: str, kind: str
) -> None:
    there = Kubectl(home.program, home.kubeconfig, where)
    assert PLACE in write(there, made(there)[kind], fails=True)


def test_what_another_has_put_in_does_not_keep_a_label_from_coming_back(home: Kubectl) -> None:
    """As long as all else stays as it is."""
    for kind, change, more in (
        (
            "statefulset",
            pod(hostNetwork=True),
            {"template": {"metadata": {"annotations": {"a": "b"}}}},
        ),
        ("service", spec(externalIPs=["192.0.2.1"]), {"publishNotReadyAddresses": False}),
        ("networkpolicy", selects_all("podSelector"), {"ingress": []}),
    ):
        child = made(home)[kind]
        home.create(changed(changed(child, change), unowned))
        name = child["metadata"]["name"]
        patch: Manifest = {"metadata": {"ownerReferences": child["metadata"]["ownerReferences"]}}
        asked = ("patch", kind, name, "--type=merge", DRY, OPERATOR)
        home(*asked, f"--patch={json.dumps(patch)}")
        assert REFUSED in home(*asked, f"--patch={json.dumps(patch | {'spec': more})}", fails=True)
        home("delete", kind, name)
