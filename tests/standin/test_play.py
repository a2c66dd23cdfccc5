"""The player of pods: which it plays, by what the API server tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from standin import play
from standin.node import LABEL

Json = dict[str, Any]
POD: Json = {
    "metadata": {"name": "digits-0", "namespace": "research", "uid": "1"},
    "spec": {"nodeSelector": {LABEL: "here"}, "nodeName": "standin-here-0"},
    "status": {"phase": "Pending"},
}
COMPLETE: tuple[str, Json] = ("LISTED", {})


class Played:
    """A pod that runs until it is ended."""

    ended: list[str]

    def __init__(self, _api: object, pod: Json, *_: object) -> None:
        self.uid = pod["metadata"]["uid"]

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(self.uid)


@pytest.mark.parametrize("told", [[("ADDED", POD)], [("LISTED", POD), COMPLETE, ("MODIFIED", POD)]])
def test_a_pod_that_goes_while_nobody_watches_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[tuple[str, Json]]
) -> None:
    """The next list lacks it, whatever a watch told of it before."""
    Played.ended = []
    monkeypatch.setattr(play, "PlayedPod", Played)
    seen: list[list[str]] = []

    class Api:
        async def follow(self, *_: str) -> AsyncIterator[tuple[str, Json]]:
            for event in (*told, COMPLETE):
                seen.append(list(Played.ended))
                yield event
                await asyncio.sleep(0)  # what was begun runs, what was ended ends
            seen.append(list(Played.ended))

    player = play.Player(Api(), "here", 0, tmp_path)  # type: ignore[arg-type]
    asyncio.run(player.run())
    assert seen == [*([] for _ in (*told, COMPLETE)), ["1"]]
