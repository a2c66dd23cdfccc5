"""An API server's part in proving who a pod is: real keys and tokens, over HTTP on the loopback."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from dtjob_api.wire.positions import pod_name

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEYS, DISCOVERY = "/openid/v1/jwks", "/.well-known/openid-configuration"
UID = "5ac7f6f2-1111-4222-8333-444455556666"
AUDIENCE = f"dtjob.dev/gang/{UID}"


@dataclass
class Key:
    """One signing key of a cluster."""

    kid: str
    algorithm: str = "ES256"

    def __post_init__(self) -> None:
        self.private: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if self.algorithm == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )

    @property
    def public(self) -> dict[str, Any]:
        kind = ECAlgorithm if self.algorithm == "ES256" else RSAAlgorithm
        public = kind.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.private, self.algorithm, headers={"kid": self.kid})


def claims(position: int, pod: str, *, name: str | None = None, **changes: Any) -> dict[str, Any]:
    """What the API server puts into a token of a pod of StatefulSet `faults` or `faults-w`."""
    now = int(time.time())
    payload = {
        "aud": [AUDIENCE],
        "iss": ISSUER,
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        "sub": "system:serviceaccount:test:dtjob-worker",
        "kubernetes.io": {
            "namespace": "test",
            "pod": {"name": name or pod_name("faults", position), "uid": pod},
            "serviceaccount": {"name": "dtjob-worker", "uid": "an-account"},
        },
    }
    return {key: value for key, value in {**payload, **changes}.items() if value is not None}


@dataclass
class FakeIssuer:
    """Publishes the public halves of `keys`, or answers `status` instead."""

    keys: list[Key] = field(default_factory=lambda: [Key("first")])
    status: int = 200
    asked: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def documents(self) -> dict[str, Any]:
        return {
            KEYS: {"keys": [key.public for key in self.keys]},
            DISCOVERY: {"issuer": ISSUER, "jwks_uri": "https://203.0.113.1/openid/v1/jwks"},
        }

    def kubeconfig(self, folder: Path) -> Path:
        """By which `dtjob_trainer` takes this for the API server."""
        cluster = {"name": "fake", "cluster": {"server": self.address}}
        context = {"name": "fake", "context": {"cluster": "fake", "user": "fake"}}
        user = {"name": "fake", "user": {"token": "a pod's own"}}
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "clusters": [cluster],
                    "contexts": [context],
                    "users": [user],
                }
            )
        )
        return path


@contextlib.contextmanager
def serving(issuer: FakeIssuer) -> Iterator[FakeIssuer]:
    """Answer on the loopback."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            body = json.dumps(issuer.documents.get(self.path, {})).encode()
            self.send_response(issuer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    issuer.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
