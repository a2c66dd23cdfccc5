"""By what a run knows again under which environment it has tried a task."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from dtjob_trainer.rank import environment


@pytest.mark.rule(21)
def test_one_run_knows_its_environment_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment.digest(tmp_path / "state")
    assert before is not None
    monkeypatch.setenv("TOKEN", "geheim\udc80")
    assert environment.digest(tmp_path / "state") not in (before, None)
    monkeypatch.delenv("TOKEN")
    assert environment.digest(tmp_path / "state") == before


@pytest.mark.rule(21)
def test_nobody_guesses_a_variable_from_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIN", "1234")
    found = {environment.digest(tmp_path / run) for run in ("a", "b")}
    assert len(found) == 2
    assert hashlib.sha256(json.dumps({"PIN": "1234"}).encode()).hexdigest() not in found
    assert (tmp_path / "a" / "environment.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.rule(21)
def test_a_torn_key_is_made_anew(tmp_path: Path) -> None:
    before = environment.digest(tmp_path)
    (tmp_path / "environment.key").write_bytes(b"half")
    after = environment.digest(tmp_path)
    assert after not in (before, None)
    assert environment.digest(tmp_path) == after
    assert [path.name for path in tmp_path.iterdir()] == ["environment.key"]
