"""The API server over HTTP: requests and watches in one event loop."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp

Json = dict[str, Any]
_NAMES_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_MAX_LINE = 2**22


class Refused(Exception):
    """An answer that is no success."""


class Api:
    """The holder of a kubeconfig, by token or by certificate.

    Parameters
    ----------
    agent
        What the audit log calls it.
    """

    def __init__(self, kubeconfig: Path, agent: str) -> None:
        config = json.loads(kubeconfig.read_text())
        user = config["users"][0]["user"]
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._server: str = cluster["server"]
        self._tls = ssl.create_default_context(cadata=authority)
        if "client-key-data" in user:
            pair = kubeconfig.with_suffix(".pem")
            parts = ("client-certificate-data", "client-key-data")
            pair.write_bytes(b"\n".join(base64.b64decode(user[part]) for part in parts))
            self._tls.load_cert_chain(pair)
        self._headers = {"Accept": "application/json", "User-Agent": agent}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, read_bufsize=_MAX_LINE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> Json:
        """An object or a list."""
        return await self._ask("GET", path)

    async def post(self, path: str, body: Json) -> Json:
        """Create an object."""
        return await self._ask("POST", path, body)

    async def put(self, path: str, body: Json, agent: str, token: str) -> Json:
        """Replace an object, as another agent with a token; returns what is stored.

        A client with a certificate can't: that counts for more than a token.
        """
        other = {"User-Agent": agent, "Authorization": f"Bearer {token}"}
        return await self._ask("PUT", path, body, other)

    async def delete(self, path: str) -> None:
        """Delete an object, or all of a collection; what they own goes in the background."""
        await self._ask("DELETE", path, {"propagationPolicy": "Background"})

    async def count(self, path: str) -> int:
        """How many objects a collection has."""
        found = await self.get(f"{path}?limit=1")
        rest: int = found["metadata"].get("remainingItemCount", 0)
        return len(found["items"]) + rest

    async def watch(
        self, path: str, *, names_alone: bool = False
    ) -> AsyncIterator[tuple[str, Json]]:
        """Types of events and objects, from those that are there on.

        The API server ends a watch that it finds too slow; the next begins where that ended.
        """
        headers = self._headers | ({"Accept": _NAMES_ALONE} if names_alone else {})
        url = f"{self._server}{path}{'&' if '?' in path else '?'}watch=1"
        version = ""
        while True:
            async with self._session.get(url + version, headers=headers) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise Refused(f"watching {path}: {event['object']}")
                    version = f"&resourceVersion={event['object']['metadata']['resourceVersion']}"
                    yield event["type"], event["object"]

    async def _ask(
        self, method: str, path: str, body: Json | None = None, extra: dict[str, str] | None = None
    ) -> Json:
        headers = self._headers | (extra or {})
        async with self._session.request(
            method, self._server + path, headers=headers, json=body
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(f"{method} {path}: {answer.status} {text[:500]}")
            found: Json = json.loads(text)
            return found
