"""The oldest Kubernetes that docs/cluster.md names takes the definitions, and says the same.

A bare API server with its etcd, on this machine's loopback: nothing else of that version is here.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kubernetes import client, config
from ruamel.yaml import YAML

from dtjob_api.schema import crd
from dtjob_api.schema.validation import validate
from localcluster.base.progress import Progress
from localcluster.cluster.component import answers
from localcluster.control.certificates import Authority
from localcluster.install import binaries
from testing.needs import OLDEST_KUBERNETES, oldest_api_server
from tests.support.checkout import ROOT
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
ADMINISTRATORS = "system:masters"


def test_it_is_the_one_that_the_page_names() -> None:
    minor = OLDEST_KUBERNETES.removeprefix("v").rsplit(".", 1)[0]
    assert f"Kubernetes {minor} or newer" in PAGE.read_text()


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in listeners]


@contextmanager
def running(folder: Path, *argv: str) -> Iterator[None]:
    log = folder / f"{Path(argv[0]).name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an administrator of the API server, while it runs."""
    folder = tmp_path_factory.mktemp("oldest")
    authority = Authority.create("oldest")
    authority.pair.write(folder, "ca")
    authority.issue("api-server", addresses=["127.0.0.1"]).write(folder, "server")
    authority.issue("administrator", [ADMINISTRATORS]).write(folder, "administrator")
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "accounts.key").write_bytes(key)
    binaries.ensure(Progress(), (binaries.ETCD,))
    store, peer, port = free_ports(3)
    etcd = running(
        folder,
        str(binaries.path(binaries.ETCD, "etcd")),
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=http://127.0.0.1:{store}",
        f"--advertise-client-urls=http://127.0.0.1:{store}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    )
    api_server = running(
        folder,
        str(oldest_api_server()),
        f"--etcd-servers=http://127.0.0.1:{store}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        f"--client-ca-file={folder / 'ca.crt'}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'accounts.key'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
    )
    path = folder / "kubeconfig"
    url = f"https://127.0.0.1:{port}"
    cluster = {"server": url, "certificate-authority": str(folder / "ca.crt")}
    user = {
        "client-certificate": str(folder / "administrator.crt"),
        "client-key": str(folder / "administrator.key"),
    }
    YAML(typ="safe").dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "oldest", "cluster": cluster}],
            "users": [{"name": "oldest", "user": user}],
            "contexts": [{"name": "oldest", "context": {"cluster": "oldest", "user": "oldest"}}],
            "current-context": "oldest",
        },
        path,
    )
    with etcd, api_server:
        wait_for("the API server", answers(f"{url}/readyz", folder / "ca.crt"), 120)
        yield path


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
