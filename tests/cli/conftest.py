"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from dtjob_accounting.process import PldProcess
from dtjob_cli.commands import fetch_result, report, run
from tests.support.commands.instant_accounts import Accounts


@pytest.fixture(scope="session")
def accountant() -> Iterator[PldProcess]:
    with PldProcess() as process:
        yield process


@pytest.fixture
def one_accountant(accountant: PldProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands of the session ask one helper: each takes 2 s of CPU to start."""

    def shared() -> AbstractContextManager[PldProcess]:
        return nullcontext(accountant)

    for command in (fetch_result, report, run):
        monkeypatch.setattr(command, "PldProcess", shared)


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """What stands for the helper of a report, where a figure's size is of no account."""
    made = Accounts()

    def shared() -> AbstractContextManager[Any]:
        return nullcontext(made)

    for command in (fetch_result, report):
        monkeypatch.setattr(command, "PldProcess", shared)
    return made
