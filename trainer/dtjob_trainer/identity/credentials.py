"""How a worker proves to the coordinator that it belongs to the gang, and how that finds out.

In pods by the pod's own projected token; on one machine by a secret that its user alone can read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import jwt

from dtjob_api.reasons import Reason
from dtjob_api.wire.worker_config import ProofKind, WorkerConfig
from dtjob_trainer.identity.issuer import Issuer, ask_api_server
from dtjob_trainer.identity.proof import Expected, Speaker, judge, unproved

#: Of those with which an API server may sign; never one whose key is a secret, or none.
ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")
_SCHEME = "Bearer "
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750


class Credentials(Protocol):
    """One kind of proof, from both sides."""

    @property
    def trouble(self) -> tuple[Reason, str] | None:
        """Why the coordinator can know nobody, where that lasts."""

    def show(self, body: bytes) -> str:
        """The header by which this worker proves that `body` is its hello.

        Raises
        ------
        OSError
            The file with the proof can't be read.
        """

    async def speaker(self, shown: str, body: bytes) -> Speaker:
        """Who sent `body`.

        Raises
        ------
        HelloDenied
            What was shown proves nothing.
        """


def open_credentials(config: WorkerConfig) -> Credentials:
    """The proof that a worker's configuration names.

    Raises
    ------
    OSError
        The secret of a local run can't be read.
    """
    proof = config.proof
    if proof.kind is ProofKind.SECRET:
        return RunSecret(Path(proof.path).read_bytes())
    expected = Expected(str(proof.audience), config.job.namespace, str(proof.stateful_set))
    return PodToken(Path(proof.path), expected, Issuer(ask_api_server))


@dataclass(frozen=True)
class RunSecret:
    """The secret of a local run. It is not sent: somebody else may have taken the port.

    It stays the same while the run's workers live, and they read its file only once. So a run whose
    folder was removed can still end by hellos.
    """

    secret: bytes = field(repr=False)
    trouble: None = None

    def show(self, body: bytes) -> str:
        """See `Credentials.show`."""
        return _SCHEME + self._mark(body)

    async def speaker(self, shown: str, body: bytes) -> Speaker:
        """See `Credentials.speaker`."""
        if not hmac.compare_digest(shown.encode(), self.show(body).encode()):
            raise unproved("the hello is not marked with the secret of this run")
        return Speaker(None, "")

    def _mark(self, body: bytes) -> str:
        return hmac.new(self.secret, body, hashlib.sha256).hexdigest()


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class PodToken:
    """The token that the kubelet keeps in a pod, verified without asking anybody."""

    path: Path
    expected: Expected
    issuer: Issuer
    now: Callable[[], datetime] = field(default=_utc_now)

    @property
    def trouble(self) -> tuple[Reason, str] | None:
        """See `Credentials.trouble`: also of the own token, which a kubelet may bring back."""
        try:
            self._own()
        except OSError as error:
            return (
                Reason.GANG_UNPROVABLE,
                f"worker 0 can't read the token by which it knows itself, {self.path}: "
                f"{error.strerror}. Its kubelet keeps that file; delete the pod if it does not "
                "bring it back",
            )
        return self.issuer.trouble

    def show(self, _body: bytes) -> str:
        """See `Credentials.show`."""
        return _SCHEME + self._own()

    async def speaker(self, shown: str, _body: bytes) -> Speaker:
        """See `Credentials.speaker`."""
        token = shown.removeprefix(_SCHEME)
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            if not isinstance(kid, str):
                raise unproved("the token names no key")
            claims = _signed(token, await self.issuer.key(kid))
        except jwt.PyJWTError as error:
            raise unproved(f"no token of this cluster: {type(error).__name__}") from error
        if (name := claims.get("iss")) not in self.issuer.issuers:
            await self._learn_issuer(name)
        return judge(claims, self.expected, self.issuer.issuers, self.now())

    async def _learn_issuer(self, name: Any) -> None:
        """The API server's, and that of this pod's own token, which it has from its kubelet."""
        await self.issuer.renew(lambda: name in self.issuer.issuers)
        with contextlib.suppress(OSError, jwt.PyJWTError):
            own = jwt.decode(self._own(), options={"verify_signature": False}).get("iss")
            if isinstance(own, str):
                self.issuer.issuers.add(own)

    def _own(self) -> str:
        token = self.path.read_bytes().strip()
        if not _TOKEN.fullmatch(token):  # empty, say: nothing that a header could hold
            raise OSError(errno.EINVAL, "it holds no token", str(self.path))
        return token.decode("ascii")


def _signed(token: str, key: jwt.PyJWK) -> dict[str, Any]:
    """The claims of a token whose signature is right; they are judged apart (`proof.judge`)."""
    return jwt.decode(
        token,
        key,
        algorithms=ALGORITHMS,
        options={
            "verify_signature": True,
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_aud": False,
            "verify_iss": False,
            "verify_sub": False,
            "verify_jti": False,
        },
    )
