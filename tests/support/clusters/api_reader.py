"""Reading a cluster's objects over one connection: a look costs a request, not a process."""

from __future__ import annotations

import json
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config

Manifest = dict[str, Any]
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SECONDS = 30
# Of these a server that starts or stops may be the reason.
_NOT_ANSWERED = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class NotAnswered(Exception):
    """The API server, or the way there, did not answer for a moment."""


@cache
def reader(kubeconfig: Path, _content: str) -> Reader:
    """The one reader for a kubeconfig of that content."""
    return Reader(new_client_from_config(config_file=str(kubeconfig)))


class Reader:
    """What the holder of a kubeconfig may read.

    A kind is named as for kubectl: by plural, singular or short name, with its group or without.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._places: dict[str, tuple[str, bool]] = {}

    def one(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """An object, or None if there is none."""
        status, found = self._get(f"{self._path(kind, namespace)}/{name}")
        if status == HTTPStatus.NOT_FOUND:
            return None
        return _without_managed_fields(_ok(status, found))

    def all(
        self, kind: str, namespace: str | None, *, selector: str = "", managed_fields: bool = False
    ) -> list[Manifest]:
        """All objects of a kind, with `kind` and `apiVersion`; of all namespaces without one."""
        query = urlencode({"labelSelector": selector}) if selector else ""
        answer = _ok(*self._get(f"{self._path(kind, namespace)}?{query}"))
        type_of_each = {
            "apiVersion": answer["apiVersion"],
            "kind": answer["kind"].removesuffix("List"),
        }
        items = [type_of_each | item for item in answer["items"]]
        return items if managed_fields else [_without_managed_fields(item) for item in items]

    def _path(self, kind: str, namespace: str | None) -> str:
        kind = kind.lower()
        if kind not in self._places:
            self._discover()
        assert kind in self._places, f"the server has no resource {kind}"
        (prefix, plural), namespaced = self._places[kind][0].rsplit("/", 1), self._places[kind][1]
        inside = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{prefix}{inside}/{plural}"

    def _discover(self) -> None:
        for root in ("/api", "/apis"):
            for group in _ok(*self._get(root, _DISCOVERY))["items"]:
                name = group["metadata"].get("name", "")
                preferred = group["versions"][0]
                prefix = f"/apis/{name}/{preferred['version']}" if name else "/api/v1"
                for each in preferred.get("resources", []):
                    place = f"{prefix}/{each['resource']}", each["scope"] == "Namespaced"
                    names = [each["resource"], each["singularResource"]]
                    for known in [*names, *each.get("shortNames", [])]:
                        self._places.setdefault(known, place)
                        self._places[f"{known}.{name}"] = place

    def _get(self, path: str, accept: str = "application/json") -> tuple[int, Manifest]:
        request = self._client.param_serialize(
            "GET", path, header_params={"Accept": accept}, auth_settings=["BearerToken"]
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=_SECONDS)
            answer.read()
        except urllib3.exceptions.HTTPError as error:
            raise NotAnswered(str(error)) from error
        if answer.status in _NOT_ANSWERED:
            raise NotAnswered(f"{answer.status} {answer.data!r}")
        return answer.status, json.loads(answer.data or b"")


def _ok(status: int, answer: Manifest) -> Manifest:
    assert status == HTTPStatus.OK, answer
    return answer


def _without_managed_fields(item: Manifest) -> Manifest:
    item["metadata"].pop("managedFields", None)
    return item
