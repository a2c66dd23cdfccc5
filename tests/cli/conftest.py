"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from dtjob_accounting.process import PldProcess
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
