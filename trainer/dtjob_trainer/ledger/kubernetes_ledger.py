"""The ledger of a job in a cluster: a PrivacyLedger object, written through its status subresource.

Compare-and-swap is the API server's own: an update that names a resourceVersion which is no longer
the newest is answered with 409. The root rules of the CRD and the policy `ledger-writer` are
evaluated on each write (rules 10 and 18).
"""

from __future__ import annotations

import http
import json
import random
import time
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client, watch
from pydantic import ValidationError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from dtjob_api.ledger.privacy_ledger import LedgerStatus, PrivacyLedger
from dtjob_api.model import API_GROUP, first_error
from dtjob_trainer.ledger.backend import (
    AnswerLost,
    Conflict,
    LedgerMissing,
    LedgerRejected,
    LedgerUnreadable,
    Versioned,
)
from dtjob_trainer.process.api_client import api_client

_VERSION = "v1alpha1"
_PLURAL = "privacyledgers"
#: Connect and read limits of one request; a lease is far longer.
_REQUEST_SECONDS = (5.0, 15.0)
_PASSING = frozenset(
    {
        http.HTTPStatus.TOO_MANY_REQUESTS,
        http.HTTPStatus.INTERNAL_SERVER_ERROR,
        http.HTTPStatus.BAD_GATEWAY,
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        http.HTTPStatus.GATEWAY_TIMEOUT,
    }
)


#: What an API server answers, too, that has just started and has not read who may do what, or which
#: kinds there are.
_NOT_ITSELF = frozenset(
    {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN, http.HTTPStatus.NOT_FOUND}
)
_ITSELF_AGAIN_SECONDS = 15.0


def _passes(error: BaseException) -> bool:
    """Whether waiting may cure it: the API server is away, busy, or not itself yet."""
    if isinstance(error, client.ApiException):
        return error.status in _PASSING
    return isinstance(error, urllib3.exceptions.HTTPError | OSError)


_until_answered: Callable[[Callable[..., Any]], Callable[..., Any]] = retry(
    retry=retry_if_exception(_passes), wait=wait_random_exponential(multiplier=0.2, max=5.0)
)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, client.ApiException) and error.status in _NOT_ITSELF


def _until_itself(ask: Callable[..., Any]) -> Callable[..., Any]:
    """Ask again for a while, from the first time that `ask` is answered so."""
    again: Callable[[Callable[..., Any]], Callable[..., Any]] = retry(
        retry=retry_if_exception(_may_pass),
        wait=wait_random_exponential(multiplier=0.2, max=2.0),
        stop=stop_after_delay(_ITSELF_AGAIN_SECONDS),
        reraise=True,
    )
    return again(ask)


class KubernetesLedger:
    """A `Ledger` kept by the API server.

    In a pod the ServiceAccount's projected token is used and read again before it expires.

    Parameters
    ----------
    namespace, name
        Of the PrivacyLedger.
    api
        The way to the API server, where it is not this process's own (`api_client`).
    """

    def __init__(
        self, namespace: str, name: str, api: Callable[[], client.ApiClient] = api_client
    ) -> None:
        self._api = client.CustomObjectsApi(api())
        self._object: dict[str, Any] = {
            "group": API_GROUP,
            "version": _VERSION,
            "namespace": namespace,
            "plural": _PLURAL,
            "name": name,
        }
        self._has_been_read = False

    def read(self) -> Versioned:
        """The newest version; the API server is waited for. See `Ledger.read`."""
        try:
            manifest = self._get()
        except client.ApiException as error:
            raise self._unreadable(error) from error
        self._has_been_read = True
        return self._versioned(manifest)

    def replace_status(self, versioned: Versioned, status: LedgerStatus) -> Versioned:
        """Write `status` if `versioned` is the newest. See `Ledger.replace_status`."""
        ledger = versioned.ledger.model_copy(update={"status": status}).to_dict()
        ledger["metadata"]["resourceVersion"] = versioned.version
        try:
            written = _until_itself(self._api.replace_namespaced_custom_object_status)(
                **self._object, body=ledger, _request_timeout=_REQUEST_SECONDS
            )
        except client.ApiException as error:
            if error.status == http.HTTPStatus.CONFLICT:
                raise Conflict(f"{self._name} was written by somebody else meanwhile") from error
            if _passes(error):
                _pause()
                raise AnswerLost(f"{self._name}: {_detail(error)}") from error
            if error.status == http.HTTPStatus.NOT_FOUND:
                raise self._unreadable(error) from error
            raise LedgerRejected(f"{self._name} rejects the write: {_detail(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            _pause()
            raise AnswerLost(f"{self._name}: {type(error).__name__}") from error
        return self._versioned(written)

    def wait(self, version: str, timeout: float) -> Versioned | None:
        """The newest version once it is not `version`. See `Ledger.wait`."""
        deadline = time.monotonic() + timeout
        newest = self.read()
        while newest.version == version:
            left = deadline - time.monotonic()
            if left <= 0 or not self._watch(version, left):
                return None
            newest = self.read()
            if newest.version == version:
                _pause()  # the watch was broken off, as by a server that starts
        return newest

    def _watch(self, version: str, seconds: float) -> bool:
        """Whether the ledger changed within the time; a watch that failed counts as that.

        It begins at any state that the server has: a version that nobody has followed up for long
        is forgotten there, and asking for what came after it would be refused at once.
        """
        stream: Any = watch.Watch()
        place = {key: value for key, value in self._object.items() if key != "name"}
        try:
            for event in stream.stream(
                self._api.list_namespaced_custom_object,
                **place,
                field_selector=f"metadata.name={self._object['name']}",
                resource_version="0",
                timeout_seconds=max(1, int(seconds)),
                _request_timeout=(_REQUEST_SECONDS[0], seconds + _REQUEST_SECONDS[1]),
            ):
                if event["object"]["metadata"]["resourceVersion"] != version:
                    return True
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError):
            return True  # reading says what is the matter
        finally:
            stream.stop()
        return False

    def _get(self) -> Any:
        def ask() -> Any:
            return self._api.get_namespaced_custom_object(
                **self._object, _request_timeout=_REQUEST_SECONDS
            )

        # A ledger that was there is refused for good only by a server that stays with it. The
        # patience with that is the inner one: an outage before it must not use it up.
        return _until_answered(_until_itself(ask) if self._has_been_read else ask)()

    def _versioned(self, manifest: Any) -> Versioned:
        try:
            ledger = PrivacyLedger.from_dict(manifest)
        except ValidationError as error:
            raise LedgerUnreadable(
                f"{self._name} holds what this trainer does not know: {first_error(error)}. "
                "Operator and image are of different versions: use an image of the operator's "
                "version in a new job, or the operator's version that wrote it"
            ) from error
        return Versioned(manifest["metadata"]["resourceVersion"], ledger)

    @property
    def _name(self) -> str:
        return f"privacyledger {self._object['namespace']}/{self._object['name']}"

    def _unreadable(self, error: client.ApiException) -> LedgerUnreadable:
        if error.status == http.HTTPStatus.NOT_FOUND:
            return LedgerMissing(
                f"there is no {self._name}; the operator makes it before the workers start, and "
                "a run is never started without one"
            )
        return LedgerUnreadable(
            f"{self._name} can't be read: {_detail(error)}; check the RoleBinding of the worker's "
            "ServiceAccount to the ClusterRole dtjob-worker"
        )


def _pause() -> None:
    """Not all at once, and not again and again: an outage reaches every job's coordinator."""
    time.sleep(random.uniform(0.5, 1.5))  # noqa: S311


def _detail(error: client.ApiException) -> str:
    body = error.body or ""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, TypeError, KeyError):  # whoever answered, it was not the API server
        message = str(body)
    return f"{error.status} {error.reason}: {message[:500]}"
