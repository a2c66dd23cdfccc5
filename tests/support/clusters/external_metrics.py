"""An external metrics API with metrics that a test sets, as the adapter of a queue serves them."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

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

    def __init__(self, provider: LocalProvider) -> None:
        self.values: dict[str, str] = {}
        self._kubectl = Kubectl(provider.kubectl(), provider.kubeconfig(), _NAMESPACE)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        host = f"{_NAME}.{_NAMESPACE}.svc"
        authority = Authority.create("external-metrics-of-tests")
        address = provider.machine_address()
        started = asyncio.run_coroutine_threadsafe(
            self._serve(address, _context(authority, host)), self._loop
        )
        port = started.result(30)
        self._kubectl.apply(
            *announced(_API, _NAME, _NAMESPACE, (address, port), authority.pair.certificate)
        )
        wait_for("the API server finds the metrics", self._is_found, 60)

    def close(self) -> None:
        """Take the API away again."""
        self._kubectl("delete", "apiservice", _API)
        for kind in ("service", "endpointslice"):
            self._kubectl("delete", kind, _NAME, "--ignore-not-found")
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _is_found(self) -> bool:
        service = self._kubectl.get("apiservice", _API) or {}
        conditions = service.get("status", {}).get("conditions", [])
        return any((each["type"], each["status"]) == ("Available", "True") for each in conditions)

    async def _serve(self, address: str, context: ssl.SSLContext) -> int:
        app = web.Application()
        app.router.add_get(_ROOT, self._discover)
        app.router.add_get(f"{_ROOT}/namespaces/{{namespace}}/{{metric}}", self._value)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, address, 0, ssl_context=context)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

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


def _context(authority: Authority, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        authority.issue(host, names=[host]).write(Path(folder), "server")
        context.load_cert_chain(Path(folder) / "server.crt", Path(folder) / "server.key")
    return context
