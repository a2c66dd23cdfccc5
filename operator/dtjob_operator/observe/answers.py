"""Questions to the helper process that are answered later: their tasks, and why there is none."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Hashable
from typing import Any, Generic, TypeVar

import structlog

from dtjob_accounting.process import HelperFailed

#: Until a question that had no answer is asked again.
RETRY_SECONDS = 10.0
_MAX_FAILURES = 4096
_MAX_FAILURE = 500

Question = TypeVar("Question", bound=Hashable)


class Answers(Generic[Question]):
    """What is under way, and what went wrong with each question that was asked last."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: OrderedDict[Question, str] = OrderedDict()
        self._log = structlog.get_logger("accounting")

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this beside all else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def failure(self, question: Question) -> str | None:
        """Why a question had no answer; None where it had one, or was never asked."""
        return self._failures.get(question)

    def succeeded(self, question: Question) -> None:
        """Forget what went wrong before."""
        self._failures.pop(question, None)

    def failed(self, question: Question, error: Exception) -> None:
        """Keep what went wrong, for the status."""
        if isinstance(error, HelperFailed):
            self._log.error("the accounting helper gave no answer", error=str(error))
            why = str(error)
        else:
            self._log.error("the privacy arithmetic failed", exc_info=error)
            why = f"{type(error).__name__}: {error}"
        self._failures[question] = why[:_MAX_FAILURE]
        self._failures.move_to_end(question)
        if len(self._failures) > _MAX_FAILURES:
            self._failures.popitem(last=False)

    def close(self) -> None:
        """Stop waiting."""
        for task in self._tasks:
            task.cancel()
