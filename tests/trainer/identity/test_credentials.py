"""Proofs of both kinds, from who shows them to who believes them; keys over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kubernetes.config import kube_config

from dtjob_api.reasons import Reason
from dtjob_trainer.identity.credentials import PodToken, RunSecret, open_credentials
from dtjob_trainer.identity.issuer import ASK_SECONDS, Issuer, Published, ask_api_server, published
from dtjob_trainer.identity.proof import Expected, HelloDenied, Speaker
from tests.support.gangs.fake_issuer import (
    AUDIENCE,
    DISCOVERY,
    ISSUER,
    KEYS,
    FakeIssuer,
    Key,
    claims,
    serving,
)
from tests.support.gangs.gang_run import GangRun

BODY = b'{"position": 1}'


class Clock:
    """Seconds, as a test counts them: whoever sleeps has slept."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIssuer]:
    with serving(FakeIssuer()) as issuer:
        kubeconfig = str(issuer.kubeconfig(tmp_path))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", kubeconfig)
        yield issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def coordinator(tmp_path: Path, issuer: FakeIssuer, clock: Clock) -> PodToken:
    """The coordinator's credentials, with its own token beside it."""
    path = tmp_path / "token"
    path.write_text(issuer.keys[0].sign(claims(0, "pod-0")))
    issuing = Issuer(ask_api_server, clock, clock.sleep)
    return PodToken(path, Expected(AUDIENCE, "test", "faults"), issuing)


def speaker_of(coordinator: PodToken, token: str) -> Speaker:
    return asyncio.run(coordinator.speaker(f"Bearer {token}", BODY))


def refusal(coordinator: PodToken, token: str) -> str:
    with pytest.raises(HelloDenied) as caught:
        speaker_of(coordinator, token)
    return str(caught.value)


def test_a_pods_token_speaks_for_it(issuer: FakeIssuer, coordinator: PodToken) -> None:
    payload = claims(1, "pod-1")
    assert speaker_of(coordinator, issuer.keys[0].sign(payload)) == Speaker(
        1, "pod-1", payload["iat"]
    )
    assert issuer.asked == [KEYS, DISCOVERY]


def test_a_token_is_read_again_for_each_hello(coordinator: PodToken) -> None:
    """Its kubelet replaces it."""
    coordinator.path.write_text("another\n")
    assert coordinator.show(BODY) == "Bearer another"


@pytest.mark.parametrize("left", [b"", b"\n", "é".encode(), b"a\nb"])
def test_a_file_that_holds_no_token_is_reported_and_waited_for(
    coordinator: PodToken, left: bytes
) -> None:
    coordinator.path.write_bytes(left)
    with pytest.raises(OSError, match="holds no token"):
        coordinator.show(BODY)
    assert coordinator.trouble is not None
    reason, message = coordinator.trouble
    assert reason is Reason.GANG_UNPROVABLE
    assert f"{coordinator.path}: it holds no token" in message


def test_rsa_keys_are_known_too(issuer: FakeIssuer, coordinator: PodToken) -> None:
    issuer.keys.append(Key("rsa", "RS256"))
    assert speaker_of(coordinator, issuer.keys[1].sign(claims(1, "pod-1"))).pod == "pod-1"


def forged(payload: dict[str, Any], secret: bytes | None = None, **header: Any) -> str:
    """Signed by nobody, or by HMAC."""
    parts = [json.dumps(part).encode() for part in ({"kid": "first", **header}, payload)]
    signed = ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)
    mark = hmac.digest(secret, signed.encode(), "sha256") if secret is not None else b""
    return f"{signed}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"


def with_public_key_as_secret(issuer: FakeIssuer) -> str:
    """The oldest trick: a public key taken for a shared secret."""
    pem = (
        issuer.keys[0]
        .private.public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return forged(claims(1, "pod-1"), pem, alg="HS256")


def changed(issuer: FakeIssuer) -> str:
    """The signature of one token under the claims of another."""
    ours, theirs = (issuer.keys[0].sign(claims(n, f"pod-{n}")).split(".") for n in (1, 0))
    return ".".join([ours[0], theirs[1], ours[2]])


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: forged(claims(1, "pod-1"), alg="none"),
        lambda _: forged(claims(1, "pod-1"), alg="ES256"),
        with_public_key_as_secret,
        changed,
        lambda _: Key("first").sign(claims(1, "pod-1")),
        lambda _: "",
        lambda _: "a.b.c",
        lambda _: "x" * 8000,
        lambda issuer: jwt.encode(claims(1, "pod-1"), issuer.keys[0].private, "ES256"),
    ],
    ids=["none", "no signature", "HS256", "claims", "key", "empty", "words", "long", "no kid"],
)
def test_a_forged_token_is_refused(
    issuer: FakeIssuer, coordinator: PodToken, forge: Callable[[FakeIssuer], str]
) -> None:
    assert speaker_of(coordinator, issuer.keys[0].sign(claims(1, "pod-1")))
    with pytest.raises(HelloDenied) as caught:
        speaker_of(coordinator, forge(issuer))
    assert caught.value.status == 401


def test_keys_stay_while_the_api_server_is_away(
    issuer: FakeIssuer, coordinator: PodToken, clock: Clock
) -> None:
    token = issuer.keys[0].sign(claims(1, "pod-1"))
    assert speaker_of(coordinator, token)
    issuer.status = 503
    clock.seconds += 100 * ASK_SECONDS
    assert "signed by no key" in refusal(coordinator, Key("other").sign(claims(1, "pod-1")))
    assert speaker_of(coordinator, token)


def test_unknown_keys_are_asked_for_once_in_a_while(
    issuer: FakeIssuer, coordinator: PodToken, clock: Clock
) -> None:
    """However many strangers come with keys of their own."""
    assert speaker_of(coordinator, issuer.keys[0].sign(claims(1, "pod-1")))
    tokens = [Key(f"stranger-{number}").sign(claims(1, "pod-1")) for number in range(20)]

    async def together() -> list[Any]:
        speaking = (coordinator.speaker(f"Bearer {token}", BODY) for token in tokens)
        return await asyncio.gather(*speaking, return_exceptions=True)

    assert all(isinstance(answer, HelloDenied) for answer in asyncio.run(together()))
    assert (issuer.asked.count(KEYS), clock.seconds) == (2, ASK_SECONDS)
    refusal(coordinator, tokens[0])
    assert (issuer.asked.count(KEYS), clock.seconds) == (3, 2 * ASK_SECONDS)


def test_strangers_keep_no_new_key_from_being_known(
    issuer: FakeIssuer, coordinator: PodToken
) -> None:
    """The API server was asked a moment ago for one of theirs: a worker waits, and is admitted."""
    assert speaker_of(coordinator, issuer.keys[0].sign(claims(1, "pod-1")))
    refusal(coordinator, Key("stranger").sign(claims(1, "pod-1")))
    issuer.keys.append(Key("second"))
    assert speaker_of(coordinator, issuer.keys[1].sign(claims(1, "pod-1")))


def asked_in_turns(*answers: tuple[Key, ...]) -> tuple[Callable[[], Published], list[Event], Event]:
    """An API server whose answers each wait for an event, and an event that each question sets."""
    gates, asked = [Event() for _ in answers], Event()
    turns = iter(zip(gates, answers, strict=True))

    def ask() -> Published:
        gate, keys = next(turns)
        asked.set()
        assert gate.wait(60)
        document = json.dumps({"keys": [key.public for key in keys]}).encode()
        return published(document, json.dumps({"issuer": ISSUER}).encode())

    return ask, gates, asked


def test_a_key_that_is_made_while_others_ask_is_asked_for_again(tmp_path: Path) -> None:
    """The answer that is on its way may be older than the key."""
    first, second = Key("first"), Key("second")
    ask, gates, asked = asked_in_turns((first,), (first, second))
    clock = Clock()
    expected = Expected(AUDIENCE, "test", "faults")
    credentials = PodToken(tmp_path / "none", expected, Issuer(ask, clock, clock.sleep))

    async def scene() -> Speaker:
        def says(key: Key) -> asyncio.Task[Speaker]:
            shown = f"Bearer {key.sign(claims(1, 'pod-1'))}"
            return asyncio.create_task(credentials.speaker(shown, BODY))

        early = says(first)
        await asyncio.to_thread(asked.wait, 60)
        late = says(second)
        await asyncio.sleep(0)
        for gate in gates:
            gate.set()
        await early
        return await late

    assert asyncio.run(scene()).pod == "pod-1"


def test_a_question_counts_though_its_asker_has_gone(tmp_path: Path) -> None:
    """A stranger who breaks off must not have the API server asked again at once."""
    ask, gates, asked = asked_in_turns((Key("another"),), (Key("first"),))
    clock = Clock()
    issuing = Issuer(ask, clock, clock.sleep)

    async def scene() -> None:
        gone = asyncio.create_task(issuing.key("a stranger's"))
        await asyncio.to_thread(asked.wait, 60)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        waiting = asyncio.create_task(issuing.key("first"))
        await asyncio.sleep(0)
        for gate in gates:
            gate.set()
        assert (await waiting).key_id == "first"

    asyncio.run(scene())
    assert clock.seconds == ASK_SECONDS


def test_a_key_that_comes_late_is_known_at_once(tmp_path: Path) -> None:
    """To a hello that came while another's question took longer than a hello may take."""
    ask, gates, asked = asked_in_turns((Key("first"),))
    issuing = Issuer(ask, clock := Clock(), clock.sleep)

    async def scene() -> None:
        gone = asyncio.create_task(issuing.key("first"))
        await asyncio.to_thread(asked.wait, 60)
        gone.cancel()
        waiting = asyncio.create_task(issuing.key("first"))
        await asyncio.sleep(0)
        gates[0].set()
        assert (await waiting).key_id == "first"

    asyncio.run(scene())
    assert clock.seconds == 0


def test_without_discovery_the_own_token_tells_the_issuer(
    issuer: FakeIssuer, coordinator: PodToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeIssuer, "documents", {KEYS: {"keys": [issuer.keys[0].public]}})
    assert speaker_of(coordinator, issuer.keys[0].sign(claims(1, "pod-1")))
    assert coordinator.issuer.issuers == {ISSUER}
    other = issuer.keys[0].sign(claims(1, "pod-1", iss="https://elsewhere.example"))
    assert "issuer" in refusal(coordinator, other)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (403, "system:service-account-issuer-discovery to the group system:serviceaccounts"),
        (401, "system:service-account-issuer-discovery"),
        (404, "--service-account-issuer must be an https URL"),
    ],
)
def test_a_missing_right_is_named(
    issuer: FakeIssuer, coordinator: PodToken, clock: Clock, status: int, remedy: str
) -> None:
    """Not at once: an API server that has just started refuses what it allows later."""
    issuer.status = status
    token = issuer.keys[0].sign(claims(1, "pod-1"))
    assert remedy in refusal(coordinator, token)
    assert coordinator.trouble is None
    clock.seconds += 20
    refusal(coordinator, token)
    trouble = coordinator.trouble
    assert trouble is not None
    assert trouble[0] is Reason.GANG_UNPROVABLE
    assert remedy in trouble[1]
    issuer.status = 200
    clock.seconds += 10
    assert speaker_of(coordinator, token)
    assert coordinator.trouble is None


@pytest.mark.parametrize(
    "keys", [{}, {"keys": []}, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, []]
)
def test_an_answer_that_holds_no_keys_is_none(
    coordinator: PodToken, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, keys: Any
) -> None:
    monkeypatch.setattr(FakeIssuer, "documents", {KEYS: keys, DISCOVERY: {}})
    with pytest.raises(HelloDenied):
        speaker_of(coordinator, issuer.keys[0].sign(claims(1, "pod-1")))


def test_a_token_that_can_not_be_read_is_reported_until_it_can(coordinator: PodToken) -> None:
    """Its kubelet may bring it back: the pod waits, and its job says for what."""
    assert coordinator.trouble is None
    token = coordinator.path.read_text()
    coordinator.path.unlink()
    reason, message = coordinator.trouble or (None, "")
    assert reason is Reason.GANG_UNPROVABLE
    assert f"{coordinator.path}: No such file or directory" in message
    coordinator.path.write_text(token)
    assert coordinator.trouble is None


def test_the_secret_of_a_run_is_read_once(tmp_path: Path) -> None:
    """Else whoever moves the run's folder away ends the gang's hellos, and not the gang."""
    run = GangRun(tmp_path)
    mine = open_credentials(run.config(0))
    run.secret.unlink()
    assert asyncio.run(mine.speaker(mine.show(BODY), BODY)) == Speaker(None, "")


def test_a_hello_is_marked_with_the_secret_of_the_run() -> None:
    """The secret itself is never sent."""
    mine, other = RunSecret(b"secret"), RunSecret(b"another")
    speaking: Callable[[str, bytes], Coroutine[Any, Any, Speaker]] = mine.speaker
    assert asyncio.run(speaking(mine.show(BODY), BODY)) == Speaker(None, "")
    for shown, body in [
        (other.show(BODY), BODY),
        (mine.show(BODY), BODY + b" "),
        ("Bearer secret", BODY),
        ("", BODY),
    ]:
        with pytest.raises(HelloDenied):
            asyncio.run(speaking(shown, body))
