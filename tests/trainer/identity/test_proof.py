"""What a token must say before a hello is listened to: whose it is, and when it holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtjob_trainer.identity.proof import LEEWAY_SECONDS, Expected, HelloDenied, Speaker, judge
from tests.support.gangs.fake_issuer import AUDIENCE, ISSUER, claims

EXPECTED = Expected(AUDIENCE, "test", "faults")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MOMENT = int(NOW.timestamp())
TIMES = {"iat": MOMENT, "nbf": MOMENT, "exp": MOMENT + 600}


def judged(now: datetime = NOW, **changes: Any) -> Speaker:
    message = claims(3, "a-pod", **{**TIMES, **changes})
    return judge(message, EXPECTED, {ISSUER}, now)


def bound(**changes: Any) -> dict[str, Any]:
    pod = {"name": "faults-w-2", "uid": "a-pod"}
    return {"kubernetes.io": {"namespace": "test", "pod": pod, **changes}}


def test_a_pod_speaks_for_its_position() -> None:
    assert judged(**bound()).position == 3
    assert judged(**bound(pod={"name": "faults-0", "uid": "a-pod"})).position == 0
    assert judged() == Speaker(3, "a-pod", MOMENT)
    assert judged(aud=AUDIENCE) == Speaker(3, "a-pod", MOMENT)
    assert judged(iat=MOMENT - 400).issued == MOMENT - 400


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": ["https://kubernetes.default.svc"]}, "audience"),
        ({"aud": [AUDIENCE, "https://kubernetes.default.svc"]}, "audience"),
        ({"aud": f"{AUDIENCE}-other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "https://elsewhere.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"kubernetes.io": None}, "bound to no pod"),
        ({"kubernetes.io": "faults-3"}, "bound to no pod"),
        (bound(pod=None), "bound to no pod"),
        (bound(pod={"name": "faults-3"}), "bound to no pod"),
        (bound(pod={"name": "faults-3", "uid": ""}), "bound to no pod"),
        (
            bound(namespace="other"),
            "no worker's pod: in namespace test these are faults-0 and those of StatefulSet "
            "faults-w",
        ),
        # The coordinator's set, scaled up by hand.
        (bound(pod={"name": "faults-3", "uid": "x"}), "no worker's pod"),
        (bound(pod={"name": "other-3", "uid": "x"}), "no worker's pod"),
        (bound(pod={"name": "faults-w-03", "uid": "x"}), "no worker's pod"),
        (bound(pod={"name": "faults-w--3", "uid": "x"}), "no worker's pod"),
        (bound(pod={"name": "faults-w-٣", "uid": "x"}), "no worker's pod"),
        (bound(pod={"name": "faults-w", "uid": "x"}), "no worker's pod"),
        ({"exp": None}, "exp is no time"),
        ({"exp": "soon"}, "exp is no time"),
        ({"exp": 10**30}, "exp is no time"),
        ({"iat": True}, "iat is no time"),
        ({"nbf": -1}, "nbf is no time"),
    ],
)
def test_who_is_no_worker_of_this_gang_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(HelloDenied, match=why):
        judged(**changes)


@pytest.mark.parametrize("name", ["iat", "nbf", "exp"])
def test_clocks_may_differ_a_little(name: str) -> None:
    slack = LEEWAY_SECONDS - 1 if name == "exp" else -LEEWAY_SECONDS
    changed: dict[str, Any] = {name: MOMENT - slack}
    assert judged(**changed).pod == "a-pod"


def test_a_refusal_for_time_names_both_clocks() -> None:
    late = NOW + timedelta(seconds=600 + LEEWAY_SECONDS)
    with pytest.raises(HelloDenied) as caught:
        judged(now=late)
    message = str(caught.value)
    assert "ended at 2026-03-01T12:10:00Z, made at 2026-03-01T12:00:00Z" in message
    assert "the coordinator's clock says 2026-03-01T12:11:00Z" in message


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_of_a_clock_that_is_ahead_names_both_clocks(name: str) -> None:
    changed: dict[str, Any] = {name: MOMENT + LEEWAY_SECONDS + 1}
    with pytest.raises(HelloDenied) as caught:
        judged(**changed)
    assert "holds only from 2026-03-01T12:01:01Z on" in str(caught.value)
    assert "the coordinator's clock says 2026-03-01T12:00:00Z" in str(caught.value)
