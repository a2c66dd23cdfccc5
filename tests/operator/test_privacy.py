"""Privacy arithmetic without waiting: whoever asked is told, whatever became of the question."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest
from world import digits

from dtjob_accounting.process import HelperFailed
from dtjob_operator import privacy
from dtjob_operator.store import Key

KEY = ("research", "digits")


class Broken:
    """A helper process that answers the first question with an error."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def noise_multiplier(self, *_: float) -> float:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return 2.2

    def epsilon(self, *_: float) -> float:
        return 7.9

    def version(self) -> str:
        return "dp-accounting 0.6"

    def submit_epsilon_of_segments(self, *_: Any) -> Future[float]:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        answer: Future[float] = Future()
        answer.set_result(2.3)
        return answer


@pytest.mark.parametrize("error", [HelperFailed("died"), OSError("no memory"), ValueError("?")])
@pytest.mark.parametrize("question", ["plan", "epsilon"])
def test_a_question_without_an_answer_is_asked_again(
    error: Exception, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "_RETRY_SECONDS", 0.05)
    segment = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "draws": 10}
    ledger = {
        "metadata": {"uid": "ledger"},
        "spec": {"plan": {"delta": 1e-5}},
        "status": {"segments": [segment]},
    }

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        begun: list[float] = []
        accounting = privacy.Accounting(Broken(error), told.put_nowait)  # type: ignore[arg-type]

        def ask() -> object:
            if question == "plan":
                return accounting.plan(KEY, digits())
            return accounting.epsilon_spent(KEY, ledger)

        for _ in range(2):
            assert ask() is None
            begun.append(asyncio.get_running_loop().time())
            async with asyncio.timeout(10):
                assert await told.get() == KEY
        assert begun[1] - begun[0] >= 0.05
        assert ask() is not None
        accounting.close()

    asyncio.run(scenario())
