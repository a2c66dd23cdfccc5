"""The only way from the operator to the API server: a few verbs on plain dicts.

Typed models are not decoded here; raw JSON is eight times faster. What should not be there yet is
created, so that nobody else's object is ever changed by it; what is there is changed by server-side
apply under one field manager, and the job's status by a replacement that carries the resource
version it is based on: no write of another is lost.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from dtjob_operator.kube.api_errors import (
    ApiError,
    Gone,
    NamespaceTerminating,
    NoSuchKind,
    NotFound,
    Unavailable,
)
from dtjob_operator.kube.ownership import taken_over
from dtjob_operator.kube.trimmed import trimmed
from dtjob_operator.terms.kinds import LEASE, SPEC_IS_OURS, Json, Kind, kind_of
from dtjob_operator.terms.names import FIELD_MANAGER

_PAGE = 500
_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)
# The API server sends a bookmark about every minute: a watch that is silent for longer is dead.
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90)
_WATCH_SECONDS = 300
# What requests for discovery are counted as.
_GROUPS = Kind("v1", "APIGroup", "apigroups")
_RESOURCES = Kind("v1", "APIResource", "apiresources")

_NO_ANSWER = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ssl.SSLError)

RequestObserver = Callable[[str, Kind, int], None]
"""Called after each request with verb, kind and HTTP status (0: no answer)."""


class KubeClient:
    """A client of the API server.

    Objects are what `trimmed` leaves of the API server's. Methods raise `ApiError` or one of its
    subclasses, and nothing else.

    Attributes
    ----------
    may_write
        Whether writes to anything but a Lease are sent; where not they fail (`Unavailable`).
    """

    def __init__(self, configuration: Configuration, observe: RequestObserver) -> None:
        self._host = configuration.host.rstrip("/")
        self._api_client = ApiClient(configuration)
        self._observe = observe
        self.may_write: Callable[[], bool] = lambda: True

    async def close(self) -> None:
        """Close all connections."""
        await self._api_client.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json:
        """One object."""
        return trimmed(await self._json("get", "GET", kind, kind.path(namespace, name)), kind)

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> tuple[list[Json], int]:
        """All objects that match, and the resource version to watch from."""
        objects: list[Json] = []
        version = 0
        async for page, of_page in self.pages(
            kind,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
        ):
            objects += page
            version = of_page
        return objects, version

    async def pages(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncIterator[tuple[Iterator[Json], int]]:
        """The objects that match, page by page, and the resource version to watch from.

        All pages are of one version.
        """
        query = _selectors(label_selector, field_selector) | {"limit": str(_PAGE)}
        while True:
            page = await self._json("list", "GET", kind, kind.path(namespace), query)
            version = int(page["metadata"]["resourceVersion"])
            yield (trimmed(each, kind) for each in page["items"]), version
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    @asynccontextmanager
    async def watch(
        self,
        kind: Kind,
        resource_version: int,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
        """Enter: the watch is established. Then: what happens after a resource version.

        Yields (ADDED, MODIFIED, DELETED or BOOKMARK, object) until the API server ends it, after
        some minutes.

        Raises
        ------
        Gone
            The watch can't continue from this version; list again.
        """
        query = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(resource_version),
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        response = await self._request(
            "watch", "GET", kind, kind.path(namespace), query, timeout=_WATCH_TIMEOUT
        )
        try:
            yield _events(response, kind)
        finally:
            response.close()

    async def served(self, api_version: str) -> set[str]:
        """Plurals of a group's version in the API server's discovery, maybe none.

        What is served may be missing from it for some seconds after the API server has started.
        """
        group, _, version = api_version.partition("/")
        known = await self._json("discover", "GET", _GROUPS, "/apis")
        if not any(
            each["name"] == group and version in {v["version"] for v in each["versions"]}
            for each in known.get("groups") or ()
        ):
            return set()
        try:
            found = await self._json("discover", "GET", _RESOURCES, f"/apis/{api_version}")
        except NotFound:
            return set()
        return {each["name"] for each in found.get("resources") or ()}

    async def create(self, obj: Json) -> Json:
        """Create an object; raises `AlreadyExists` where there is one of that name."""
        kind = kind_of(obj)
        query = {"fieldManager": FIELD_MANAGER}
        path = kind.path(obj["metadata"]["namespace"])
        return trimmed(await self._json("create", "POST", kind, path, query, obj), kind)

    async def apply(self, obj: Json) -> Json:
        """Server-side apply of all the fields that we want to own.

        An object that carries `metadata.uid` must be there with this UID (else `Conflict`), and
        our values win. One that carries none may be there: nothing of another is overridden.
        """
        kind, metadata = kind_of(obj), obj["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if "uid" in metadata else "false"}
        content_type = "application/apply-patch+yaml"
        return trimmed(
            await self._json("apply", "PATCH", kind, path, query, obj, content_type), kind
        )

    async def own_by_apply(self, obj: Json) -> None:
        """Let what we created count as applied: else an apply could take no field away again.

        So does what others have set in the spec of a child, which is the operator's alone. The
        labels and owners that the object should have come with it, for the admission policy
        operator-writes lets nothing be written without them.
        """
        kind, wanted = kind_of(obj), obj["metadata"]
        path = kind.path(wanted["namespace"], wanted["name"])
        stored = await self._json("get", "GET", kind, path)
        found = stored["metadata"]
        entries = taken_over(stored, kind.api_version, with_spec=kind in SPEC_IS_OURS)
        if entries is None:
            return
        owners = {each["uid"]: each for each in found.get("ownerReferences") or ()}
        owners |= {each["uid"]: each for each in wanted.get("ownerReferences") or ()}
        change = {
            "resourceVersion": found["resourceVersion"],
            "managedFields": entries,
            "labels": wanted["labels"],
            **({"ownerReferences": [*owners.values()]} if owners else {}),
        }
        query, content_type = {"fieldManager": FIELD_MANAGER}, "application/merge-patch+json"
        await self._json("patch", "PATCH", kind, path, query, {"metadata": change}, content_type)

    async def merge_patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Json,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """JSON merge patch of an object or of its subresource."""
        path = kind.path(namespace, name) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        content_type = "application/merge-patch+json"
        return trimmed(
            await self._json("patch", "PATCH", kind, path, query, patch, content_type), kind
        )

    async def replace_status(self, obj: Json, status: Json) -> Json:
        """Replace the status of the very version that was read.

        Raises
        ------
        Conflict
            The object has changed since, or is another one of the same name.
        """
        kind = kind_of(obj)
        metadata = obj["metadata"]
        identity = ("name", "namespace", "uid", "resourceVersion")
        body = {**obj, "metadata": {field: metadata[field] for field in identity}, "status": status}
        path = kind.path(metadata["namespace"], metadata["name"]) + "/status"
        query = {"fieldManager": FIELD_MANAGER}
        return trimmed(await self._json("update_status", "PUT", kind, path, query, body), kind)

    async def replace(self, obj: Json) -> Json:
        """Replace the very version that was read; raises `Conflict` where it has changed since."""
        kind, metadata = kind_of(obj), obj["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": FIELD_MANAGER}
        return trimmed(await self._json("update", "PUT", kind, path, query, obj), kind)

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        uid: str,
        *,
        dry_run: bool = False,
        by_force: bool = False,
    ) -> None:
        """Delete an object of that UID and, in the background, what it owns.

        Parameters
        ----------
        by_force
            At once, though it may not have ended.
        """
        body: Json = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        if by_force:
            body["gracePeriodSeconds"] = 0
        if dry_run:  # in the body: where there is one no option of a query is read
            body["dryRun"] = ["All"]
        await self._json("delete", "DELETE", kind, kind.path(namespace, name), body=body)

    async def _json(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        response = await self._request(verb, method, kind, path, query, body, content_type)
        try:
            answer: Json = json.loads(await response.read())
        except (*_NO_ANSWER, ValueError) as error:
            raise Unavailable(0, "AnswerBroken", f"{method} {path}: {error}") from error
        finally:
            response.release()
        return answer

    async def _request(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> aiohttp.ClientResponse:
        """Send a request; returns the answer's head if it is a success, raises otherwise."""
        if method != "GET" and kind is not LEASE and not self.may_write():
            message = f"{method} {path}: not sent, since another operator may lead by now"
            raise Unavailable(0, "NotLeading", message)
        headers = {"Accept": "application/json", "Content-Type": content_type}
        url = self._host + path
        if query:
            url += "?" + urlencode(query)
        status = 0
        try:
            # Reads a rotated token; the client library signs nothing by itself.
            await self._api_client.update_params_for_auth(
                headers, [], ["BearerToken"], path, method, body
            )
            answer = await self._api_client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            response: aiohttp.ClientResponse = answer.response
            status = response.status
            if status >= 400:
                text = await response.text()
                raise _error(status, _status_object(text))
            return response
        except _NO_ANSWER as error:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise Unavailable(0, "NoAnswer", f"{method} {path}: {what}") from error
        finally:
            self._observe(verb, kind, status)


async def _events(response: aiohttp.ClientResponse, kind: Kind) -> AsyncIterator[tuple[str, Json]]:
    """The lines of a watch."""
    try:
        async for line in response.content:
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise _error(event["object"].get("code", 500), event["object"])
            found: Json = event["object"]
            # A bookmark has nothing but its version.
            yield event["type"], found if event["type"] == "BOOKMARK" else trimmed(found, kind)
    except TimeoutError as error:
        # The connection is dead; or etcd was restored from a backup and has yet to reach the
        # version that is watched from: an API server may be silent until then.
        raise Gone(0, "WatchSilent", f"watching {kind.plural}: {error!r}") from error
    except (*_NO_ANSWER, ValueError) as error:
        raise Unavailable(0, "WatchBroken", f"watching {kind.plural}: {error!r}") from error


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value is not None}


def _status_object(text: str) -> dict[str, Any]:
    """The metav1.Status of an error's body; proxies in between answer in other words."""
    try:
        status = json.loads(text)
    except ValueError:
        return {"message": text[:500]}
    return status if isinstance(status, dict) else {"message": text[:500]}


def _error(code: int, status: dict[str, Any]) -> ApiError:
    reason, message = status.get("reason", ""), status.get("message", f"HTTP {code}")
    details = status.get("details") or {}
    causes = {cause.get("reason") for cause in details.get("causes") or ()}
    if "NamespaceTerminating" in causes:
        return NamespaceTerminating(code, reason, message)
    if "ResourceVersionTooLarge" in causes:
        return Gone(code, reason, message)
    if code == 404 and not details.get("name"):
        return NoSuchKind(code, reason, message)
    return ApiError.of(code, reason, message)
