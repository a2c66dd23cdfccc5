"""The few requests of a kubelet, with the rights of whoever plays it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes import client, config

Json = dict[str, Any]

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_read=90)
_WATCH_SECONDS = 300
_PATCH = "application/strategic-merge-patch+json"
_AGAIN_SECONDS = 0.5


class ApiError(Exception):
    """What the API server answered instead of what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """The API server."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        self.address: str = settings.host
        self.authority = Path(str(settings.ssl_ca_cert))
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        token = settings.get_api_key_with_prefix("authorization")
        self._session = aiohttp.ClientSession(
            base_url=self.address,
            connector=aiohttp.TCPConnector(ssl=context),
            headers={"Authorization": token} if token else {},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """The answer to one request.

        Raises
        ------
        ApiError
            It is a refusal.
        aiohttp.ClientError, TimeoutError
            There was none.
        """
        kind = _PATCH if method == "PATCH" else "application/json"
        async with self._session.request(
            method,
            path,
            params=query,
            data=json.dumps(body) if body is not None else None,
            headers={"Content-Type": kind},
            timeout=_TIMEOUT,
        ) as response:
            if response.status >= 400:
                raise ApiError(response.status, await response.text())
            answer: Json = await response.json()
            return answer

    async def follow(self, path: str, selector: str) -> AsyncIterator[tuple[str, Json]]:
        """Every object and each change of it, for ever; after a gap all come anew as LISTED.

        Yields also ("LISTED", {}) once a list is complete, so that the caller knows what is gone.
        """
        while True:
            try:
                listed = await self.request("GET", path, query={"labelSelector": selector})
                for each in listed["items"]:
                    yield "LISTED", each
                yield "LISTED", {}
                version = listed["metadata"]["resourceVersion"]
                async for event in self._watch(path, selector, version):
                    yield event
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _watch(
        self, path: str, selector: str, version: str
    ) -> AsyncIterator[tuple[str, Json]]:
        query = {"watch": "1", "labelSelector": selector, "resourceVersion": version}
        query |= {"timeoutSeconds": str(_WATCH_SECONDS), "allowWatchBookmarks": "true"}
        async with self._session.get(path, params=query, timeout=_WATCH_TIMEOUT) as response:
            half = b""
            async for chunk in response.content.iter_any():
                *lines, half = (half + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(410, str(event["object"]))
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
