"""The API server and the offline rules say the same of every manifest and every change.

No operator runs meanwhile: it would look after the jobs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.clusters.kube import Kubectl, unguarded
from tests.support.rules.job_transitions import JOB_TRANSITIONS
from tests.support.rules.ledger_attacks import LEDGER_CHANGES
from tests.support.rules.manifest_cases import BAD_CASES
from tests.support.rules.server_answers import ApiServer, compare

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def namespace(installed: Kubectl, new_namespace: Callable[[], Kubectl]) -> Kubectl:
    return new_namespace()


def test_bad_manifests_are_refused_in_the_same_words(namespace: Kubectl) -> None:
    assert len(BAD_CASES) >= 40
    server = ApiServer(str(namespace.kubeconfig), namespace.namespace)
    assert compare(server, transitions=JOB_TRANSITIONS) == []


def test_attacks_on_a_ledger_are_refused_in_the_same_words(namespace: Kubectl) -> None:
    """By the CRD's own rules: the policy would speak first."""
    stored = LEDGER_CHANGES[0].stored
    seen = {key: stored[key] for key in ("apiVersion", "kind", "spec")}
    namespace.apply(seen | {"metadata": {"name": "seen"}})
    server = ApiServer(str(namespace.kubeconfig), namespace.namespace)
    with unguarded(namespace, seen | {"metadata": {"name": "seen"}}):
        assert compare(server, cases=(), transitions=LEDGER_CHANGES) == []
