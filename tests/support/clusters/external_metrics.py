"""An external metrics API with metrics that a test sets, as the adapter of a queue serves them."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from localcluster.control.certificates import Authority
from localcluster.control.metrics import announced
from localcluster.providers.local import LocalProvider
from tests.support.clusters.kube import Kubectl, wait_for

_GROUP, _VERSION = "external.metrics.k8s.io", "v1beta1"
_API = f"{_VERSION}.{_GROUP}"
_ROOT = f"/apis/{_GROUP}/{_VERSION}"
_NAME, _NAMESPACE = "external-metrics", "default"
_TIME = "2026-01-01T00:00:00Z"


class ExternalMetrics:
    """Served by a thread of this process, and reached by the cluster's API server.

    Attributes
    ----------
    values
        By the metric's name, a quantity.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    @classmethod
    @contextmanager
    def of(cls, provider: LocalProvider) -> Iterator[Self]:
        """Serve it while the context lasts; no API is left behind, whatever fails."""
        metrics, kubectl = cls(), Kubectl(provider.kubectl(), provider.kubeconfig(), _NAMESPACE)
        authority = Authority.create("external-metrics-of-tests")
        address = provider.machine_address()
        context = _context(authority, f"{_NAME}.{_NAMESPACE}.svc")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        with ExitStack() as ends:
            ends.callback(loop.close)
            ends.callback(thread.join, 30)
            ends.callback(loop.call_soon_threadsafe, loop.stop)
            starting = metrics._serve(address, context)
            runner = asyncio.run_coroutine_threadsafe(starting, loop).result(30)
            ends.callback(lambda: asyncio.run_coroutine_threadsafe(_end(runner), loop).result(30))
            endpoint = (address, runner.addresses[0][1])
            objects = announced(_API, _NAME, _NAMESPACE, endpoint, authority.pair.certificate)
            for each in objects:
                kind, name = each["kind"].lower(), each["metadata"]["name"]
                ends.callback(kubectl, "delete", kind, name, "--ignore-not-found")
            kubectl.apply(*objects)
            wait_for("the API server finds the metrics", lambda: _is_found(kubectl), 60)
            yield metrics

    async def _serve(self, address: str, context: ssl.SSLContext) -> web.AppRunner:
        app = web.Application()
        app.router.add_get(_ROOT, self._discover)
        app.router.add_get(f"{_ROOT}/namespaces/{{namespace}}/{{metric}}", self._value)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address, 0, ssl_context=context).start()
        return runner

    async def _discover(self, _request: web.Request) -> web.Response:
        resources = [
            {"name": name, "kind": "ExternalMetricValueList", "namespaced": True, "verbs": ["get"]}
            for name in self.values
        ]
        found = {"kind": "APIResourceList", "groupVersion": f"{_GROUP}/{_VERSION}"}
        return web.json_response(found | {"resources": resources})

    async def _value(self, request: web.Request) -> web.Response:
        name = request.match_info["metric"]
        items: list[dict[str, Any]] = []
        if name in self.values:
            items.append(
                {
                    "metricName": name,
                    "metricLabels": {},
                    "timestamp": _TIME,
                    "value": self.values[name],
                }
            )
        found = {"kind": "ExternalMetricValueList", "apiVersion": f"{_GROUP}/{_VERSION}"}
        return web.json_response(found | {"metadata": {}, "items": items})


async def _end(runner: web.AppRunner) -> None:
    """End the server and what the API server keeps open to it, which else outlives the loop."""
    for connection in runner.server.connections if runner.server else ():
        if connection.transport is not None:
            connection.transport.abort()
    await runner.cleanup()


def _is_found(kubectl: Kubectl) -> bool:
    service = kubectl.get("apiservice", f"{_VERSION}.{_GROUP}") or {}
    conditions = service.get("status", {}).get("conditions", [])
    return any((each["type"], each["status"]) == ("Available", "True") for each in conditions)


def _context(authority: Authority, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        authority.issue(host, names=[host]).write(Path(folder), "server")
        context.load_cert_chain(Path(folder) / "server.crt", Path(folder) / "server.key")
    return context
