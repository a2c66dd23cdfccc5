"""The oldest Kubernetes that docs/cluster.md names takes the definitions, and says the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from dtjob_api.schema import crd
from dtjob_api.schema.validation import validate
from localcluster.install import binaries
from tests.support.checkout import ROOT
from tests.support.clusters import bare_api_server
from tests.support.clusters.kube import wait_for
from tests.support.rules.job_transitions import JOB_TRANSITIONS
from tests.support.rules.ledger_attacks import LEDGER_CHANGES
from tests.support.rules.manifest_cases import BAD_CASES, GOOD_CASES, mistakes
from tests.support.rules.server_answers import ApiServer
from tests.support.rules.transitions import Transition

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.nightly(minutes=3, together=True),
    pytest.mark.oldest_kubernetes,
    pytest.mark.timeout(300),
]
PAGE = ROOT / "docs" / "cluster.md"


def test_it_is_the_one_that_the_page_names() -> None:
    minor = binaries.OLDEST_KUBERNETES.version.removeprefix("v").rsplit(".", 1)[0]
    assert f"Kubernetes {minor} or newer" in PAGE.read_text()


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an administrator of the API server, while it runs."""
    bare_api_server.build()
    with bare_api_server.serving(tmp_path_factory.mktemp("oldest")) as kubeconfig:
        yield kubeconfig


@pytest.fixture(scope="module")
def server(kubeconfig: Path) -> ApiServer:
    """The API server, with both definitions."""
    definitions: Any = client.ApiextensionsV1Api(config.new_client_from_config(str(kubeconfig)))
    for made in (crd.job_crd(), crd.ledger_crd()):
        definitions.create_custom_resource_definition(made)
        name = made["metadata"]["name"]

        def established(name: str = name) -> bool:
            conditions = definitions.read_custom_resource_definition(name).status.conditions or []
            return any(each.type == "Established" and each.status == "True" for each in conditions)

        wait_for(f"{name} established", established, 60)
    return ApiServer(str(kubeconfig))


def without_values(messages: list[str]) -> list[str]:
    """Before 1.37 the API server named the value's type, or wrote it as Go does."""
    quoted = r'((?:Invalid|Unsupported) value): (?:"(?:[^"\\]|\\.)*"|null|true|false|[-+.\de]+): '
    shortened = [re.sub(quoted, r"\1: ", message) for message in mistakes(messages)]
    return sorted(re.sub(r"(Duplicate value): .*", r"\1", message) for message in shortened)


def test_it_says_the_same_of_every_manifest(server: ApiServer) -> None:
    assert len(BAD_CASES) >= 40
    for case in (*BAD_CASES, *GOOD_CASES):
        offline = without_values([str(error) for error in validate(case.manifest)])
        assert without_values(server.refusal_of_creation(case.manifest)) == offline, case.name


@pytest.mark.parametrize(
    "change", [*JOB_TRANSITIONS, *LEDGER_CHANGES], ids=lambda change: change.name
)
def test_it_refuses_the_same_changes(server: ApiServer, change: Transition) -> None:
    offline = [str(error) for error in validate(change.changed, old=change.stored)]
    if change.part == "status":  # of which the schema tells paths from there
        offline = [re.sub(r"\bstatus\.(\S+ in body)", r"\1", error) for error in offline]
    assert without_values(server.refusal_of_change(change)) == without_values(offline)
