"""Helper processes that fail, answer at once, or answer when they are let."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any


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


class Calm(Broken):
    """A helper process that answers every question."""

    def __init__(self) -> None:
        super().__init__(OSError())
        self._error = None


class Slow(Calm):
    """A helper process that answers questions about epsilon when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Future[float]] = []
        self.draws: list[int] = []

    def submit_epsilon_of_segments(self, segments: Any, _delta: float) -> Future[float]:
        self.draws.append(segments[0][2])
        self.asked.append(Future())
        return self.asked[-1]


class Held(Calm):
    """A helper process that answers when it is let.

    Attributes
    ----------
    asked
        Draws of the plans that were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.goes_on = threading.Event()

    def noise_multiplier(self, *of: float) -> float:
        self.asked.append(int(of[3]))
        assert self.goes_on.wait(60)
        return 2.2
