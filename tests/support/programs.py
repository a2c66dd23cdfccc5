"""Programs of the test's own, in a folder `bin` of a machine that it plays."""

from __future__ import annotations

from pathlib import Path

import pytest


def program(machine: Path, name: str, script: str = "exit 0") -> None:
    """A program that runs this script of the shell."""
    file = machine / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def noted(machine: Path, name: str, script: str) -> None:
    """A program whose calls are noted."""
    program(machine, name, f'echo "{name} $*" >> {machine}/calls\n{script}')


def calls(machine: Path) -> list[str]:
    """What was called, in this order."""
    return (machine / "calls").read_text().splitlines()


def without_programs(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it no programs but the test's."""
    monkeypatch.setenv("PATH", str(machine / "bin"))


def with_programs(machine: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Leave it the usual tools and, of the programs that matter, these."""
    for name in names:
        program(machine, name)
    for tool in ("cat", "sleep", "sh"):
        (machine / "bin" / tool).symlink_to(f"/bin/{tool}")
    without_programs(machine, monkeypatch)
