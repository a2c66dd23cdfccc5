"""Who sent a hello: a ServiceAccount token is judged here, without I/O or clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from dtjob_api.wire import positions

#: By so much the clocks of two nodes may differ, and those of two API servers.
LEEWAY_SECONDS = 60


class HelloDenied(Exception):
    """Raised to deny a hello; the message gives the reason and the remedy."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Speaker:
    """Who sent a hello.

    Attributes
    ----------
    position
        The worker's; None where the proof identifies the run but not the worker.
    pod
        UID of its pod; empty in a run without pods.
    issued
        When the API server made the pod's token, by its own clock; 0 in a run without pods.
    """

    position: int | None
    pod: str
    issued: int = 0


@dataclass(frozen=True)
class Expected:
    """What a worker's token must say, whichever worker it is.

    Attributes
    ----------
    audience
        Whom it was made for: one job's gang.
    namespace, stateful_set
        Of the coordinator; the other workers' pods are named after it.
    """

    audience: str
    namespace: str
    stateful_set: str


def unproved(why: str) -> HelloDenied:
    """No proof, or not one that counts here."""
    return HelloDenied(HTTPStatus.UNAUTHORIZED, why)


def judge(
    claims: Mapping[str, Any], expected: Expected, issuers: Collection[str], now: datetime
) -> Speaker:
    """The worker that a token speaks for; the signature has been verified.

    Raises
    ------
    HelloDenied
        It was made by or for somebody else, at another time, or for no pod of this gang.
    """
    _require_purpose(claims, expected, issuers)
    _require_time(claims, now)
    return _speaker(claims, expected)


def _require_purpose(
    claims: Mapping[str, Any], expected: Expected, issuers: Collection[str]
) -> None:
    if claims.get("iss") not in issuers:
        raise unproved("the token's issuer is not that of this cluster")
    if claims.get("aud") not in (expected.audience, [expected.audience]):
        raise unproved(f"the token's audience is not {expected.audience} alone")


def _require_time(claims: Mapping[str, Any], now: datetime) -> None:
    """Both clocks are named: it is mostly one of them that is wrong."""
    clock = int(now.timestamp())
    times: dict[str, int] = {}
    for name in ("iat", "nbf", "exp"):
        moment = claims.get(name)
        # Later than the year 9999 is no time that anybody could show.
        if type(moment) is not int or not 0 <= moment < 253_402_300_800:
            raise unproved(f"the token's {name} is no time")
        times[name] = moment
    if max(times["iat"], times["nbf"]) > clock + LEEWAY_SECONDS:
        wrong = f"holds only from {_shown(max(times['iat'], times['nbf']))} on"
    elif times["exp"] <= clock - LEEWAY_SECONDS:
        wrong = f"ended at {_shown(times['exp'])}"
    else:
        return
    raise unproved(
        f"the token {wrong}, made at {_shown(times['iat'])} by the API server's clock; the "
        f"coordinator's clock says {_shown(clock)}: set the clocks of the nodes"
    )


def _shown(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _speaker(claims: Mapping[str, Any], expected: Expected) -> Speaker:
    bound = claims.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, Mapping) else None
    if not isinstance(bound, Mapping) or not isinstance(pod, Mapping):
        raise unproved("the token is bound to no pod")
    name, uid = pod.get("name"), pod.get("uid")
    if not isinstance(name, str) or not isinstance(uid, str) or not uid:
        raise unproved("the token is bound to no pod")
    position = positions.position_of(expected.stateful_set, name)
    if bound.get("namespace") != expected.namespace or position is None:
        raise HelloDenied(
            HTTPStatus.FORBIDDEN,
            f"the token is bound to no worker's pod: in namespace {expected.namespace} these are "
            f"{positions.pod_name(expected.stateful_set, 0)} and those of StatefulSet "
            f"{positions.set_name(expected.stateful_set, positions.Role.WORKER)}",
        )
    return Speaker(position, uid, claims["iat"])
