"""Which way to a cluster is taken, what it calls, and what a person is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from localcluster import choose, engine
from localcluster.cli import app
from localcluster.errors import CannotRunHere, ClusterError
from localcluster.progress import Progress
from localcluster.providers import kind

pytestmark = pytest.mark.usefixtures("empty_machine")


def without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


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
    for program, code in (("docker", 1), ("podman", 0), ("kind", 0)):
        script = tmp_path / "bin" / program
        script.write_text(f"#!/bin/sh\nexit {code}\n")
        script.chmod(0o755)
    assert choose.provider("any", choose.Choice.AUTO, Progress()).kind == "kind"
    assert engine.find() == "podman"


def test_the_command_shows_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    result = CliRunner().invoke(app, ["up", "--provider", "kind"])
    assert result.exit_code == 1
    assert "error: no cluster can run here: kind: no Docker or Podman engine" in result.output
    assert "Traceback" not in result.output
    bad = CliRunner().invoke(app, ["up", "--name", "No_Name", "--provider", "kind"])
    assert "'No_Name' can't be the name of a cluster" in bad.output


def test_kind_command_lines(tmp_path: Path) -> None:
    config = tmp_path / "config"
    assert kind.create_argv("dtjob-a", config) == (
        f"kind create cluster --name=dtjob-a --wait=120s --kubeconfig={config}".split()
    )
    assert kind.delete_argv("dtjob-a", config) == (
        f"kind delete cluster --name=dtjob-a --kubeconfig={config}".split()
    )
    assert kind.export_argv("dtjob-a", config) == (
        f"kind export kubeconfig --name=dtjob-a --kubeconfig={config}".split()
    )
    assert kind.load_argv("dtjob-a", tmp_path / "x.tar") == (
        f"kind load image-archive {tmp_path}/x.tar --name=dtjob-a".split()
    )


def test_engine_build_command_line() -> None:
    argv = engine.build_argv(
        "docker", Path("D"), Path("."), {"B": "2", "A": "1"}, Path("/tmp/identifier")
    )
    assert argv[:2] == ["docker", "build"]
    assert argv[2:] == [
        "--iidfile=/tmp/identifier",
        "--file=D",
        "--build-arg=A=1",
        "--build-arg=B=2",
        ".",
    ]


def test_kind_goes_through_its_life_with_the_programs_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    for program in ("docker", "kind"):
        script = tmp_path / "bin" / program
        script.write_text(
            f'#!/bin/sh\necho "{program} $*" >> {calls}\n'
            'for a; do case "$a" in --iidfile=*) echo sha256:0123456789abcdef > "${a#*=}";; esac\n'
            "done\nexit 0\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    provider = kind.KindProvider("a", Progress())
    provider.up()
    image = provider.build_image("trainer", tmp_path / "Dockerfile", tmp_path, {})
    assert provider.load_image(image) == "localhost/dtjob/trainer:0123456789ab"
    provider.down()
    said = [line.split(" --")[0] for line in calls.read_text().splitlines() if "info" not in line]
    assert said[0] == "kind get clusters"
    assert said[1] == "kind create cluster"
    assert said[2] == "docker build"
    assert said[3].startswith("docker tag sha256:0123456789abcdef localhost/dtjob/trainer")
    assert said[4] == "docker save"
    assert said[5].startswith("kind load image-archive")
    assert said[6] == "kind delete cluster"
