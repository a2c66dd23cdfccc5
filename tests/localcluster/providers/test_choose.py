"""Which way to a cluster is taken, and why none can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.progress import Progress
from localcluster.images import engine
from localcluster.providers import choose
from tests.support.programs import program, without_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


def test_no_provider_says_why_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(CannotRunHere) as refused:
        choose.provider("any", choose.Choice.AUTO, Progress())
    message = str(refused.value)
    assert "existing: DTJOB_KUBECONFIG is not set" in message
    assert "kind: no Docker or Podman engine answers" in message
    assert "local: pause v1 has to be built (pause) and there is no Go" in message
    assert "https://go.dev/dl/" in message


def test_without_root_local_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotRunHere, match="local: a cluster of real binaries needs root"):
        choose.provider("any", choose.Choice.LOCAL, Progress())


def test_a_kubeconfig_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTJOB_KUBECONFIG", str(tmp_path / "config"))
    chosen = choose.provider("any", choose.Choice.AUTO, Progress())
    assert chosen.kind == "existing"
    with pytest.raises(ClusterError, match="which is not a file"):
        chosen.kubeconfig()


def test_an_engine_that_answers_means_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    for name, code in (("docker", 1), ("podman", 0), ("kind", 0), ("kubectl", 0)):
        program(tmp_path, name, f"exit {code}")
    assert choose.provider("any", choose.Choice.AUTO, Progress()).kind == "kind"
    assert engine.find() == "podman"
