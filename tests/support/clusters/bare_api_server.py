"""The API server of the oldest supported Kubernetes with its etcd, on this machine's loopback.

Nothing else of that version is here: what is stored stays as it is, and no pod ever comes.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from localcluster.base.progress import Progress
from localcluster.cluster.component import answers
from localcluster.control.certificates import Authority
from localcluster.install import binaries
from tests.support.clusters.kube import wait_for

_ADMINISTRATORS = "system:masters"
_START_SECONDS = 120


def build() -> None:
    """Build what the tools cache lacks of it, which may take half an hour.

    Raises
    ------
    ClusterError
        It can't be built.
    """
    binaries.ensure(Progress(), (binaries.ETCD, binaries.OLDEST_KUBERNETES))


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """Serve while the context lasts; a kubeconfig of an administrator, in JSON.

    Parameters
    ----------
    folder
        For keys, logs and what is stored; it must be there.
    """
    authority = Authority.create("oldest")
    authority.pair.write(folder, "ca")
    authority.issue("api-server", addresses=["127.0.0.1"]).write(folder, "server")
    authority.issue("administrator", [_ADMINISTRATORS]).write(folder, "administrator")
    (folder / "accounts.key").write_bytes(_account_key())
    store, peer, port = _free_ports(3)
    etcd = _running(
        folder,
        binaries.path(binaries.ETCD, "etcd"),
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=http://127.0.0.1:{store}",
        f"--advertise-client-urls=http://127.0.0.1:{store}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    )
    api_server = _running(
        folder,
        binaries.path(binaries.OLDEST_KUBERNETES, "kube-apiserver"),
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
    url = f"https://127.0.0.1:{port}"
    with etcd, api_server:
        wait_for("the API server", answers(f"{url}/readyz", folder / "ca.crt"), _START_SECONDS)
        yield _kubeconfig(folder, url)


def _kubeconfig(folder: Path, url: str) -> Path:
    def data(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": url, "certificate-authority-data": data("ca.crt")}
    user = {
        "client-certificate-data": data("administrator.crt"),
        "client-key-data": data("administrator.key"),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "oldest", "cluster": cluster}],
        "users": [{"name": "oldest", "user": user}],
        "contexts": [{"name": "oldest", "context": {"cluster": "oldest", "user": "oldest"}}],
        "current-context": "oldest",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    return path


def _account_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in listeners]


@contextmanager
def _running(folder: Path, program: Path, *options: str) -> Iterator[None]:
    with (folder / f"{program.name}.log").open("w") as output:
        process = subprocess.Popen([program, *options], stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)
