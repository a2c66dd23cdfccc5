"""A hello from the supervisor that says it to the leader that hears it, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
import structlog
from structlog.testing import CapturingLogger

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import Directive, End, EndKind, GpuReading, Hello, LogPart
from dtjob_serving import doors
from dtjob_trainer.gang.endpoints import Hellos
from dtjob_trainer.gang.ends import bounded, cause
from dtjob_trainer.gang.greeter import Greeter
from dtjob_trainer.identity.credentials import PodToken
from dtjob_trainer.identity.issuer import Issuer, Published, published
from dtjob_trainer.identity.proof import Expected, HelloDenied, Speaker
from tests.support.gangs.fake_issuer import AUDIENCE, DISCOVERY, KEYS, FakeIssuer, Key, claims

FAKE = FakeIssuer()


def publish() -> Published:
    return published(*(json.dumps(FAKE.documents[path]).encode() for path in (KEYS, DISCOVERY)))


@dataclass
class Scene:
    """A leader that notes who speaks, and worker 1's way to it."""

    path: Path
    greeter: Greeter
    speakers: list[Speaker] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)
    parts: list[LogPart] = field(default_factory=list)
    log: CapturingLogger = field(default_factory=CapturingLogger)
    refuse: HelloDenied | None = None

    async def hear(self, hello: Hello, speaker: Speaker) -> Directive:
        if self.refuse is not None:
            raise self.refuse
        self.speakers.append(speaker)
        self.hellos.append(hello)
        return Directive(revision=3)

    async def keep(self, part: LogPart) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.parts.append(part)

    def hold(self, token: str) -> None:
        """What the kubelet writes into the pod."""
        self.path.write_text(token)

    @property
    def details(self) -> list[str]:
        return [call.kwargs["detail"] for call in self.log.calls]


async def slept(_seconds: float) -> None:
    """At once: no test waits until the API server may be asked again."""


def play(folder: Path, act: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        path = folder / "token"
        issuer = Issuer(publish, sleep=slept)
        credentials = PodToken(path, Expected(AUDIENCE, "test", "faults"), issuer)
        async with aiohttp.ClientSession() as session:
            listener = socket.create_server(("127.0.0.1", 0))
            log = CapturingLogger()
            greeter = Greeter(
                session, listener.getsockname(), credentials, structlog.wrap_logger(log, [])
            )
            scene = Scene(path, greeter, log=log)
            hellos = Hellos(credentials, scene.hear, scene.keep, structlog.get_logger())
            runner = await doors.serve(hellos.doors, listener)
            try:
                await act(scene)
            finally:
                await runner.cleanup()

    asyncio.run(whole())


def hello(position: int = 1) -> Hello:
    return Hello(position=position, incarnation="a", ready=True)


def test_each_hello_is_proved_by_the_token_of_its_moment(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        for pod in ("first", "second"):
            scene.hold(FAKE.keys[0].sign(claims(1, pod)))
            assert await scene.greeter.say(hello()) == Directive(revision=3)
        pods = [(speaker.position, speaker.pod) for speaker in scene.speakers]
        assert pods == [(1, "first"), (1, "second")]

    play(tmp_path, act)


def test_a_worker_speaks_for_itself_alone(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.hold(FAKE.keys[0].sign(claims(1, "pod")))
        assert await scene.greeter.say(hello(0)) is None
        assert scene.details == ["worker 1 speaks as worker 0"]
        assert scene.speakers == []

    play(tmp_path, act)


def test_why_a_hello_is_refused_is_logged_once_for_each_reason(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        assert await scene.greeter.say(hello()) is None
        for _ in range(3):
            scene.hold(Key("stranger").sign(claims(1, "pod")))
            assert await scene.greeter.say(hello()) is None
        scene.hold(FAKE.keys[0].sign(claims(1, "pod")))
        scene.refuse = HelloDenied(
            HTTPStatus.FORBIDDEN, "worker 1 is not admitted: it was replaced"
        )
        assert await scene.greeter.say(hello()) is None
        scene.refuse = None
        assert await scene.greeter.say(hello()) == Directive(revision=3)
        missing, unknown, replaced = scene.details
        assert str(scene.path) in missing
        assert "signed by no key of this cluster" in unknown
        assert replaced == "worker 1 is not admitted: it was replaced"

    play(tmp_path, act)


def test_the_ends_of_all_ranks_arrive_however_much_they_say(tmp_path: Path) -> None:
    """A worker that is refused kills its ranks, and nobody learns what they died of."""
    words = "\x01" * 1024  # of what JSON makes most
    ends = [
        End(kind=EndKind.CRASHED, rank=rank, reason=Reason.RANK_FAILED, message=words)
        for rank in range(2**31 - 256, 2**31)
    ]
    ends[200] = ends[200].model_copy(update={"kind": EndKind.FAILED, "reason": Reason.TASK_FAILED})
    gpu = GpuReading(
        worker=2**31,
        index=2**31,
        uuid="GPU-" + "0" * 36,
        name="x" * 200,
        utilization_percent=100,
        memory_used_bytes=2**63,
        memory_total_bytes=2**63,
        temperature_celsius=100,
        power_watts=1e-300,
    )
    greeting = hello().model_copy(update={"ends": bounded(ends), "gpus": (gpu,) * 16})

    async def act(scene: Scene) -> None:
        scene.hold(FAKE.keys[0].sign(claims(1, "pod")))
        assert await scene.greeter.say(greeting) == Directive(revision=3)
        (received,) = scene.hellos
        assert [end.rank for end in received.ends] == [end.rank for end in ends]
        assert cause(list(received.ends)) == ends[200]

    play(tmp_path, act)


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 30_000, b'{"position": "0"}'])
def test_what_is_proved_and_no_hello_is_refused(tmp_path: Path, body: bytes) -> None:
    async def act(scene: Scene) -> None:
        scene.hold(FAKE.keys[0].sign(claims(1, "pod")))
        shown = {"Authorization": scene.greeter._credentials.show(body)}
        async with scene.greeter._session.post(
            scene.greeter._url, data=body, headers=shown
        ) as answer:
            assert answer.status == HTTPStatus.BAD_REQUEST
            assert "are all workers of one image?" in await answer.text()
        assert scene.speakers == []

    play(tmp_path, act)
