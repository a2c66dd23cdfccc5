"""The API server and the offline rules say the same of every manifest and every change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from api_server import ApiServer, compare
from kube import Kubectl, wait_for
from manifests import BAD_CASES
from transitions import JOB_TRANSITIONS, LEDGER_TRANSITIONS

pytestmark = pytest.mark.cluster

POLICY = "validatingadmissionpolicybinding/ledger-writer.dtjob.dev"
UNGUARDED = "dtjob.dev/test-unguarded"


@pytest.fixture
def namespace(installed: Kubectl, new_namespace: Callable[[], Kubectl]) -> Iterator[Kubectl]:
    """A namespace in which only the CRD's own rules protect ledgers, so that they are what speaks.

    No operator runs meanwhile: it would look after the jobs.
    """
    kubectl = new_namespace()
    kubectl("label", "namespace", kubectl.namespace, f"{UNGUARDED}=")
    exempt = [{"key": UNGUARDED, "operator": "DoesNotExist"}]
    change = {"spec": {"matchResources": {"namespaceSelector": {"matchExpressions": exempt}}}}
    installed("patch", POLICY, "--type=merge", f"--patch={json.dumps(change)}")
    yield kubectl
    installed("patch", POLICY, "--type=merge", '--patch={"spec":{"matchResources":null}}')


def test_bad_manifests_are_refused_in_the_same_words(namespace: Kubectl) -> None:
    assert len(BAD_CASES) >= 40
    server = ApiServer(str(namespace.kubeconfig), namespace.namespace)
    assert compare(server, transitions=JOB_TRANSITIONS) == []


def test_attacks_on_a_ledger_are_refused_in_the_same_words(namespace: Kubectl) -> None:
    wait_for("the policy lets go of the namespace", lambda: _unguarded(namespace), 30)
    server = ApiServer(str(namespace.kubeconfig), namespace.namespace)
    assert compare(server, cases=(), transitions=LEDGER_TRANSITIONS) == []


def _unguarded(kubectl: Kubectl) -> bool:
    stored = LEDGER_TRANSITIONS[0].stored
    kubectl.apply({key: stored[key] for key in ("apiVersion", "kind", "metadata", "spec")})
    try:
        kubectl("delete", "privacyledger", stored["metadata"]["name"])
    except AssertionError:  # the policy's refusal
        return False
    return True
