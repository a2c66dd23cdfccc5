"""The keys and the issuer of a cluster's ServiceAccount tokens, as its API server publishes them.

Kept while the API server is away. `jwks_uri` is never followed: on managed clusters it lies
outside.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import jwt

from dtjob_api.reasons import Reason
from dtjob_trainer.identity.proof import HelloDenied

#: Tokens whose keys are unknown cost the API server at most one question in so many seconds. A
#: worker of the gang may have to wait for two such questions, and gives up after 4 s.
ASK_SECONDS = 1.0
#: The same while no key is known at all: no job trains then.
_KEYLESS_SECONDS = 10.0
#: An API server that has just started refuses what it allows a moment later.
_ITSELF_SECONDS = 15.0
_REQUEST_SECONDS = (5.0, 10.0)
_KEYS = "/openid/v1/jwks"
_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Published:
    """What an API server publishes of the tokens that it makes; keys by their `kid`."""

    keys: Mapping[str, jwt.PyJWK]
    issuer: str | None


class NotPublished(Exception):
    """The API server gave no keys; `lasting`: it answered, and will answer so again."""

    def __init__(self, why: str, *, lasting: bool) -> None:
        super().__init__(why)
        self.lasting = lasting


@dataclass
class Issuer:
    """Keys by `kid`, and the trusted issuers; both are fetched again when one is unknown.

    Attributes
    ----------
    issuers
        An issuer stays trusted after the cluster has changed it: tokens outlive the change.
    """

    ask: Callable[[], Published]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    issuers: set[str] = field(default_factory=set)
    _keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict)
    _next: float = float("-inf")
    _refused_since: float | None = None
    _why: str = "the API server has not been asked yet"
    _begun: int = 0
    _answered: int = 0
    _asking: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> tuple[Reason, str] | None:
        """Why no worker can be known, once the API server has refused for a while."""
        since = self._refused_since
        if self._keys or since is None or self.clock() - since < _ITSELF_SECONDS:
            return None
        return Reason.GANG_UNPROVABLE, self._why

    async def key(self, kid: str) -> jwt.PyJWK:
        """The key of that name.

        Raises
        ------
        HelloDenied
            There is none, or none can be had now.
        """
        if kid not in self._keys:
            await self.renew(lambda: kid in self._keys)
        if kid in self._keys:
            return self._keys[kid]
        if not self._keys:
            raise HelloDenied(HTTPStatus.SERVICE_UNAVAILABLE, f"no keys to verify by: {self._why}")
        raise HelloDenied(
            HTTPStatus.UNAUTHORIZED,
            "the token is signed by no key of this cluster, as far as the API server tells the "
            "coordinator",
        )

    async def renew(self, known: Callable[[], bool]) -> None:
        """Return once it is known, or the API server has answered a question put after this call.

        Not every call asks a question, or strangers could keep the API server busy. But no caller
        is denied on an answer from before his call: else strangers who ask too could keep a new
        key unknown. Where the API server publishes no keys yet, there is nothing to wait for.
        """
        wanted = self._begun + 1
        while (
            not known() and self._answered < wanted and (self._keys or self.clock() >= self._next)
        ):
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            # The question goes on for the others if this caller goes away.
            await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        await self.sleep(max(0.0, self._next - self.clock()))
        self._begun += 1
        try:
            published = await asyncio.to_thread(self.ask)
        except NotPublished as error:
            self._why = str(error)
            if not error.lasting:
                self._refused_since = None
            elif self._refused_since is None:
                self._refused_since = self.clock()
        else:
            self._keys, self._refused_since = published.keys, None
            self._why = "the API server publishes none"
            if published.issuer:
                self.issuers.add(published.issuer)
        finally:
            self._answered = self._begun
            pause = ASK_SECONDS if self._keys else _KEYLESS_SECONDS
            self._next = self.clock() + pause


def published(keys: bytes, discovery: bytes | None) -> Published:
    """Read a JSON Web Key Set and, where there is one, an OpenID configuration.

    Raises
    ------
    NotPublished
        Somebody else answered.
    """
    try:
        by_name = {key.key_id: key for key in jwt.PyJWKSet.from_dict(json.loads(keys)).keys}
        issuer = json.loads(discovery).get("issuer") if discovery is not None else None
    except (ValueError, AttributeError, jwt.PyJWTError) as error:
        raise NotPublished(
            f"{_KEYS} of the API server holds no keys: {type(error).__name__}", lasting=True
        ) from error
    return Published(
        {name: key for name, key in by_name.items() if name is not None},
        issuer if isinstance(issuer, str) else None,
    )


def ask_api_server() -> Published:
    """What the API server publishes, asked for with this pod's own credentials."""
    # Its import takes 1.5 s, which a run without a cluster should not wait for.
    from kubernetes import client, config

    from dtjob_trainer.process.api_client import api_client

    try:
        api = api_client()
    except config.ConfigException as error:
        raise NotPublished(f"there is no way to the API server: {error}", lasting=True) from error
    keys = _get(client.OpenidApi(api).get_service_account_issuer_open_id_keyset, _KEYS)
    try:
        discovery = _get(
            client.WellKnownApi(api).get_service_account_issuer_open_id_configuration, _DISCOVERY
        )
    except NotPublished:
        discovery = None  # the issuer of the coordinator's own token will do
    return published(keys, discovery)


def _get(ask: Callable[..., Any], path: str) -> bytes:
    import urllib3
    from kubernetes.client import ApiException

    try:
        content: bytes = ask(_preload_content=False, _request_timeout=_REQUEST_SECONDS).data
    except ApiException as error:
        raise _not_published(error.status, path) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise NotPublished(
            f"the API server can't be reached: {type(error).__name__}", lasting=False
        ) from error
    return content


def _not_published(status: int | None, path: str) -> NotPublished:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return NotPublished(
            f"the workers' ServiceAccount may not GET {path} of the API server ({status}), by "
            "which a coordinator knows its workers: bind the ClusterRole "
            "system:service-account-issuer-discovery to the group system:serviceaccounts, as "
            "Kubernetes does by default",
            lasting=True,
        )
    if status == HTTPStatus.NOT_FOUND:
        return NotPublished(
            f"the API server has no {path}, by which a coordinator knows its workers: its "
            "--service-account-issuer must be an https URL",
            lasting=True,
        )
    return NotPublished(f"the API server answers {status} to GET {path}", lasting=False)
