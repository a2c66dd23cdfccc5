"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from dtjob_accounting.process import PldProcess
from dtjob_accounting.report import Figures
from dtjob_cli.commands import report, run


@pytest.fixture(scope="session")
def accountant() -> Iterator[PldProcess]:
    with PldProcess() as process:
        yield process


@pytest.fixture
def one_accountant(accountant: PldProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands of the session ask one helper: each takes 2 s of CPU to start."""

    def shared() -> AbstractContextManager[PldProcess]:
        return nullcontext(accountant)

    for command in (report, run):
        monkeypatch.setattr(command, "PldProcess", shared)


class Accounts:
    """Answers at once, with figures that mean nothing, or refuses."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None

    def submit_epsilon_of_segments(self, *_: Any) -> Future[float]:
        return self._answer(1.5)

    def submit_figures(self, *_: Any) -> Future[Figures]:
        return self._answer(Figures(0.5, 0.01, 2.0, {2: 3.0}, 1e-5))

    def _answer(self, figures: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        if self.refusal is None:
            answer.set_result(figures)
        else:
            answer.set_exception(self.refusal)
        return answer


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """What stands for the helper in `dtjob report`, where a figure's size is of no account."""
    made = Accounts()

    def shared() -> AbstractContextManager[Any]:
        return nullcontext(made)

    monkeypatch.setattr(report, "PldProcess", shared)
    return made
