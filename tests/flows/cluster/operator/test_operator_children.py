"""A job's children: made, repaired, cleaned up, and never shared with another incarnation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for, wait_until_gone
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job
from tests.support.clusters.oracle import Oracle

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

BACK_SECONDS = 5
STARTS_SECONDS = 120
StoredJob = Callable[[Manifest], Manifest]


def phase(kubectl: Kubectl, name: str) -> str | None:
    stored = kubectl.get("dtjob", name)
    return stored.get("status", {}).get("phase") if stored else None


def condition(kubectl: Kubectl, name: str, kind: str) -> Manifest:
    stored = kubectl.get("dtjob", name) or {}
    conditions = stored.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def started(kubectl: Kubectl, name: str) -> None:
    wait_for(f"{name} is Starting", lambda: phase(kubectl, name) == "Starting", STARTS_SECONDS)


CHILDREN = ("statefulset", "service", "networkpolicy", "poddisruptionbudget")


@pytest.fixture
def running(operator: OperatorProcess, namespace: Kubectl, stored_job: StoredJob) -> Manifest:
    """A job whose children are there."""
    stored = stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    return stored


def test_the_oracle_of_all_tests_looks_at_every_version(
    oracle: Oracle, operator: OperatorProcess, namespace: Kubectl, stored_job: StoredJob
) -> None:
    before = oracle.seen
    stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    # The job as it was applied and with its first status, the ledger, both sets.
    wait_for("five versions and more", lambda: oracle.seen >= before + 5, 30)


@pytest.mark.parametrize("kind", [*CHILDREN, "serviceaccount", "rolebinding"])
def test_a_deleted_child_is_back(running: Manifest, namespace: Kubectl, kind: str) -> None:
    shared = kind in ("serviceaccount", "rolebinding")
    name = "dtjob-worker" if shared else child_name(running)
    before = namespace.get(kind, name)
    assert before is not None
    namespace("delete", kind, name, "--wait=false")

    def again() -> bool:
        found = namespace.get(kind, name)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    wait_for(f"the {kind} is back", again, BACK_SECONDS, at_most=0.5)


def of_pods(spec: Manifest) -> Manifest:
    """A StatefulSet's spec with that of its pods."""
    return {"template": {"spec": spec}}


def test_a_changed_child_is_repaired(running: Manifest, namespace: Kubectl) -> None:
    name = child_name(running)
    namespace("patch", "service", name, '--patch={"spec":{"publishNotReadyAddresses":false}}')

    def repaired() -> bool:
        found = namespace.get("service", name)
        return bool(found and found["spec"].get("publishNotReadyAddresses"))

    wait_for("the service is repaired", repaired, BACK_SECONDS, at_most=0.5)


TEMPLATE = {"name": "extra", "image": "registry.invalid/extra:1"}
ADDITIONS: dict[str, tuple[str, Manifest]] = {
    "ordinals": ("statefulset", {"ordinals": {"start": 1}}),
    "a gate": ("statefulset", of_pods({"schedulingGates": [{"name": "example.org/gate"}]})),
    "a node": ("statefulset", of_pods({"nodeSelector": {"disk": "none"}})),
    "a container": ("statefulset", of_pods({"containers": [TEMPLATE]})),
    "an init container": ("statefulset", of_pods({"initContainers": [TEMPLATE]})),
    "a variable": (
        "statefulset",
        of_pods({"containers": [{"name": "worker", "env": [{"name": "EXTRA", "value": "1"}]}]}),
    ),
    "a volume": (
        "statefulset",
        of_pods({"volumes": [{"name": "extra", "hostPath": {"path": "/etc"}}]}),
    ),
    "a label": ("statefulset", {"template": {"metadata": {"labels": {"extra": "1"}}}}),
    "an address": ("service", {"externalIPs": ["192.0.2.7"]}),
    "a port": ("service", {"ports": [{"name": "extra", "port": 9}]}),
}


@pytest.mark.parametrize("addition", ADDITIONS)
def test_what_is_added_to_a_child_is_taken_away(
    operator: OperatorProcess, running: Manifest, namespace: Kubectl, addition: str
) -> None:
    """By whichever client; what others write beside the spec is theirs."""
    name, (kind, spec) = child_name(running), ADDITIONS[addition]
    before = namespace.get(kind, name)
    assert before is not None
    patch = json.dumps({"metadata": {"annotations": {"team": "vision"}}, "spec": spec})
    namespace("patch", kind, name, "--type=strategic", f"--patch={patch}")

    def taken_away() -> bool:
        found = namespace.get(kind, name)
        return found is not None and found["spec"] == before["spec"]

    wait_for("the addition is gone", taken_away, BACK_SECONDS, at_most=0.5)
    found = namespace.get(kind, name)
    assert found is not None
    assert found["metadata"]["annotations"]["team"] == "vision"
    assert "kubectl-patch" in {line.get("set_by") for line in operator.logs()}


def addresses(policy: Manifest) -> set[str]:
    """Networks that a policy opens."""
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", ())]
    return {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer}


def test_the_policy_names_the_api_server_as_it_names_itself(
    running: Manifest, namespace: Kubectl
) -> None:
    default = Kubectl(namespace.program, namespace.kubeconfig, "default")
    endpoint_slice, service = (
        default.get(kind, "kubernetes") for kind in ("endpointslice", "service")
    )
    assert endpoint_slice is not None
    assert service is not None
    policy = namespace.get("networkpolicy", child_name(running))
    assert policy is not None
    endpoints = {a for each in endpoint_slice["endpoints"] for a in each["addresses"]}
    expected = {f"{address}/32" for address in (*endpoints, *service["spec"]["clusterIPs"])}
    assert addresses(policy) == expected
    told = condition(namespace, "digits", "NetworkRestricted")
    assert (told["status"], told["reason"]) == ("Unknown", "EnforcementUnknown")


def test_the_policy_goes_and_comes_with_the_spec(running: Manifest, namespace: Kubectl) -> None:
    name = child_name(running)
    for policy, there in (("None", False), ("Restricted", True)):
        change = json.dumps({"spec": {"network": {"policy": policy}}})
        namespace("patch", "dtjob", "digits", "--type=merge", f"--patch={change}")

        def followed(there: bool = there) -> bool:
            return (namespace.get("networkpolicy", name) is not None) == there

        wait_for(f"policy {policy}", followed, BACK_SECONDS, at_most=0.5)
        reason = "EnforcementUnknown" if there else "PolicyNone"

        def told(reason: str = reason) -> bool:
            found: bool = condition(namespace, "digits", "NetworkRestricted")["reason"] == reason
            return found

        wait_for(f"the status says {reason}", told, 60)


def test_a_pod_that_loses_its_label_is_told(running: Manifest, namespace: Kubectl) -> None:
    """No event and no watch by label tells of it."""
    pod = f"{child_name(running)}-w-0"
    wait_for("the pod", lambda: namespace.get("pod", pod), 60)
    namespace("label", "pod", pod, "dtjob.dev/job-uid-")

    def told() -> str | None:
        found = condition(namespace, "digits", "NetworkRestricted")
        return found["message"] if found["reason"] == "WorkerUnlabelled" else None

    message = wait_for("the status says so", told, 60)
    assert f"pod {pod}" in message
    assert "NetworkPolicy does not hold for it" in message
    namespace("delete", "pod", pod, "--wait=false")

    def over() -> bool:
        found: bool = condition(namespace, "digits", "NetworkRestricted")["reason"] != (
            "WorkerUnlabelled"
        )
        return found

    wait_for("it is over", over, 60)


def test_what_the_operator_does_not_write_any_more_is_taken_away(
    running: Manifest, namespace: Kubectl
) -> None:
    """As where another version of it made a child: with what it creates it owns it as applied."""
    name = child_name(running)
    ports = json.dumps([{"name": "old", "port": 7}])
    change = f'{{"metadata":{{"labels":{{"old":"1"}}}},"spec":{{"selector":null,"ports":{ports}}}}}'
    manager = "--field-manager=dtjob-operator"
    namespace("patch", "service", name, "--type=merge", f"--patch={change}", manager)

    def repaired() -> bool:
        found = namespace.get("service", name)
        assert found is not None
        ports = {each["name"] for each in found["spec"]["ports"]}
        return "old" not in found["metadata"]["labels"] and ports == {"http", "store", "hello"}

    wait_for("it is as this version makes it", repaired, 30)


@pytest.mark.rule(13)
def test_deleting_the_job_leaves_its_ledger_and_its_claim(
    running: Manifest, namespace: Kubectl
) -> None:
    """And the garbage collector does the rest."""
    name = child_name(running)
    wait_for("the claim", lambda: namespace.list("pvc"), 120)
    namespace("delete", "dtjob", "digits")
    for kind in CHILDREN:
        wait_until_gone(namespace, kind, name, 120)
    wait_for("no pods", lambda: not namespace.list("pods"), 120)
    assert namespace.get("privacyledger", name)
    assert len(namespace.list("pvc")) == 1


def test_a_job_of_the_same_name_shares_nothing_with_the_one_before(
    running: Manifest, namespace: Kubectl, stored_job: StoredJob
) -> None:
    namespace("delete", "dtjob", "digits", "--wait=false")
    again = stored_job(unplaced_job("digits"))
    assert child_name(again) != child_name(running)
    wait_for("its own set", lambda: namespace.get("statefulset", child_name(again)), 120)
    for kind in CHILDREN:
        child = namespace.get(kind, child_name(again))
        assert child is not None
        assert [o["uid"] for o in child["metadata"]["ownerReferences"]] == [
            again["metadata"]["uid"]
        ]
        wait_until_gone(namespace, kind, child_name(running), 120)


def test_a_job_that_never_trained_takes_another_number_at_once(
    running: Manifest, namespace: Kubectl
) -> None:
    namespace("scale", "dtjob", "digits", "--replicas=3")

    def workers() -> int:
        stateful_set = namespace.get("statefulset", f"{child_name(running)}-w")
        assert stateful_set is not None
        return int(stateful_set["spec"]["replicas"])

    wait_for("its pods are asked for", lambda: workers() == 2, 60)
    ledger = namespace.get("privacyledger", child_name(running))
    assert ledger is not None
    order = ledger["spec"]["run"]
    assert (order["generation"], order["workers"], order["state"]) == (2, 3, "Run")


def test_deleting_the_ledger_is_refused(running: Manifest, namespace: Kubectl) -> None:
    refusal = namespace("delete", "privacyledger", child_name(running), fails=True)
    assert "never deleted" in refusal


@pytest.mark.local_cluster
@pytest.mark.usefixtures("no_scheduler")
def test_a_start_costs_at_most_twelve_writes(
    operator: OperatorProcess, proxy: ApiProxy, namespace: Kubectl, stored_job: StoredJob
) -> None:
    """Nine to Starting, the first job of its namespace; all up takes one, Running two more."""
    before, began = len(proxy.writes()), time.monotonic()
    stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    wait_for("the claim", lambda: namespace.list("pvc"), 120)
    written = [each for each in proxy.writes()[before:] if each.namespace == namespace.namespace]
    told = ", ".join(f"{each.verb} {each.resource}" for each in written)
    # A start that takes long earns one write of its figures every 30 s.
    assert len(written) <= 9 + int((time.monotonic() - began) // 30), told


@pytest.mark.local_cluster
@pytest.mark.usefixtures("no_scheduler")
def test_a_restart_writes_nothing(
    start_operator: Callable[[], OperatorProcess],
    operator: OperatorProcess,
    proxy: ApiProxy,
    running: Manifest,
    namespace: Kubectl,
) -> None:
    wait_for("the claim", lambda: namespace.list("pvc"), 120)
    proxy.settle()
    assert operator.terminate() == 0
    before = len(proxy.writes())
    again = start_operator()
    again.wait_until_ready()

    def looked() -> bool:
        return again.metrics()['dtjob_reconciles_total{result="ok"}'] >= 3

    wait_for("jobs are reconciled", looked, 60)
    written = [each for each in proxy.writes()[before:] if each.namespace == namespace.namespace]
    assert written == []
    again.terminate()


def test_a_foreign_object_of_a_childs_name_is_left_alone(
    start_operator: Callable[[], OperatorProcess],
    operator: OperatorProcess,
    namespace: Kubectl,
    stored_job: StoredJob,
) -> None:
    operator.kill()
    stored = stored_job(unplaced_job("digits"))
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": child_name(stored)},
        "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
    }
    namespace.apply(foreign)
    process = start_operator()

    def conflict() -> bool:
        return condition(namespace, "digits", "ResourcesReady").get("reason") == "NameConflict"

    wait_for("a condition says so", conflict, 120)
    found = namespace.get("service", child_name(stored))
    assert found is not None
    assert found["spec"]["ports"][0]["port"] == 1
    assert "ownerReferences" not in found["metadata"]

    namespace("delete", "service", child_name(stored))
    started(namespace, "digits")
    process.terminate()


def test_kubectl_delete_works_while_the_operator_is_down(
    start_operator: Callable[[], OperatorProcess],
    namespace: Kubectl,
    stored_job: StoredJob,
) -> None:
    process = start_operator()
    stored = stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    process.kill()
    namespace("delete", "dtjob", "digits", "--timeout=120s")
    wait_for("no set", lambda: not namespace.get("statefulset", child_name(stored)), 120)
    finalizers = json.loads(namespace("get", "privacyledgers", "--output=json"))["items"]
    assert all("finalizers" not in each["metadata"] for each in finalizers)
