"""The event stream: kopf is started only where it will find what it is to watch."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
import pytest

from dtjob_operator.kube import event_stream
from dtjob_operator.kube.api_server import credentials
from dtjob_operator.kube.event_stream import Deliver, EventStream

DEADLINE = 60.0
MISSING = "discovery does not list privacyledgers"


class Played(EventStream):
    """A stream whose kopf ends when it is told to, before an API server that tells `answers`."""

    def __init__(self, answers: list[str | None]) -> None:
        super().__init__(lambda *_: None, self._note_gap, self._look, lambda: None)
        self.answers = answers
        self.course: list[str] = []
        self.troubles: list[str | None] = []
        self.ends = False

    async def _note_gap(self) -> None:
        self.course.append("gap")

    async def _look(self) -> str | None:
        self.troubles.append(self.trouble)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.course.append("look" if answer else "found")
        return answer

    def _kopf(self, _deliver: Deliver) -> str:
        self.course.append("kopf")
        return "stopped"


def test_a_kopf_that_does_not_stop_does_not_hold_up_the_operators_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, released, ended = threading.Event(), threading.Event(), threading.Event()

    class Stuck(Played):
        def _kopf(self, _deliver: Deliver) -> str:
            begun.set()
            released.wait(5)
            ended.set()
            return "stopped"

    async def scenario() -> None:
        running = asyncio.create_task(Stuck([None]).run())
        async with asyncio.timeout(DEADLINE):
            while not begun.is_set():
                await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    monkeypatch.setattr(event_stream, "_STOP_SECONDS", 0.01)
    asyncio.run(scenario())
    assert not ended.is_set()
    released.set()
    assert ended.wait(DEADLINE)


def play(stream: Played, until: Callable[[], bool]) -> None:
    async def scenario() -> None:
        running = asyncio.create_task(stream.run())
        async with asyncio.timeout(DEADLINE):
            while not until():
                assert not running.done()
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_RESTART_SECONDS", (0.0, 0.01))
    monkeypatch.setattr(event_stream, "_FIRST_LOOK_SECONDS", 0.001)


def test_kopf_waits_for_the_discovery_of_its_kinds() -> None:
    """It looks once, and waits for ever where it finds nothing, while all seems well."""
    stream = Played([MISSING, MISSING, None])
    play(stream, lambda: "kopf" in stream.course)
    assert stream.course[:5] == ["look", "look", "found", "gap", "kopf"]
    assert stream.troubles[1:3] == [MISSING, MISSING], "it is not ready, and says why"


def test_a_start_without_a_wait_lists_nothing_twice() -> None:
    stream = Played([None])
    play(stream, lambda: stream.course.count("kopf") >= 2)
    assert stream.course[:5] == ["found", "kopf", "found", "gap", "kopf"]


def test_kopf_is_not_started_again_before_its_kinds_are_back() -> None:
    stream = Played([None, MISSING, MISSING, None])
    play(stream, lambda: stream.course.count("kopf") >= 2)
    assert stream.course[:7] == ["found", "kopf", "look", "look", "found", "gap", "kopf"]


def test_a_wait_never_ends_by_itself() -> None:
    stream = Played([MISSING])
    play(stream, lambda: len(stream.course) >= 8)
    assert set(stream.course) == {"look"}
    assert stream.trouble == MISSING


@pytest.mark.parametrize("user", [{"token": "of-the-file"}, {}])
def test_kopf_looks_at_the_cluster_that_is_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: dict[str, str]
) -> None:
    """KUBECONFIG in a pod names one cluster, and the pod's own account is of another."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": "https://named.example:6443"}}],
        "users": [{"name": "here", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(kubeconfig))
    own = kopf.ConnectionInfo(server="https://10.0.0.1", token="of-the-pod")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: own)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(file))
    (login,) = event_stream.registry(lambda *_: None)._activities.get_all_handlers()

    handler: Any = login.fn

    async def logged_in() -> Any:
        answer = handler()
        return await answer if inspect.isawaitable(answer) else answer

    found = asyncio.run(logged_in())
    assert found.server == asyncio.run(credentials()).host == "https://named.example:6443"
    wanted = {"Authorization": "Bearer of-the-file"} if user else {}
    assert found.as_http_headers() == wanted
    assert not found.insecure
