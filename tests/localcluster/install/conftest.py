"""A machine on which packages are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localcluster.install import apt


@pytest.fixture
def machine(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of root whose apt-get and dpkg are the test's, and note how they are called."""
    monkeypatch.setenv("PATH", f"{empty_machine / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(apt, "_TRY_AGAIN_SECONDS", 0.05)
    return empty_machine
