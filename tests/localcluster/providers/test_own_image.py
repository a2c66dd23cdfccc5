"""Images of users are built on the project's."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from localcluster.cli import app
from tests.support.checkout import ROOT
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was asked of docker and kind, which are there and do nothing."""
    calls = tmp_path / "calls"
    with_programs(tmp_path, monkeypatch, "kubectl")
    for name in ("docker", "kind"):
        program(
            tmp_path,
            name,
            f'echo "{name} $*" >> {calls}\n'
            'for a; do case "$a" in --iidfile=*) echo sha256:0123456789abcdef > "${a#*=}";; '
            f"--kubeconfig=*) : > {tmp_path}/exported;; esac; done",
        )
    return calls


def test_the_operator_of_this_checkout_is_built_by_its_name(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, ["image", ".", "operator", "--provider", "kind"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "localhost/dtjob/operator:0123456789ab"
    (built,) = (line for line in calls.read_text().splitlines() if line.startswith("docker build"))
    assert f"--file={ROOT}/Dockerfile.operator" in built


def test_an_image_of_ones_own_is_built_on_the_trainer_of_this_checkout_and_loaded(
    calls: Path, tmp_path: Path
) -> None:
    own = tmp_path / "survey"
    own.mkdir()
    argv = ["image", str(own), "survey", "--provider", "kind"]
    refused = CliRunner().invoke(app, argv)
    assert "has no Dockerfile. Begin one with `FROM localhost/dtjob/trainer`" in refused.output
    taken = CliRunner().invoke(app, [*argv[:2], "trainer", *argv[3:]])
    assert "'trainer' can't be the name of an image of yours" in taken.output
    (own / "Dockerfile").write_text(
        "FROM localhost/dtjob/trainer\nCOPY survey.py /opt/dtjob/app/\n"
    )
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "localhost/dtjob/survey:0123456789ab"
    built = [line for line in calls.read_text().splitlines() if line.startswith("docker build")]
    assert [line.split("--tag=localhost/dtjob/")[1].split()[0] for line in built] == [
        "trainer",
        "survey",
    ]
    (own / "Dockerfile").write_text("FROM registry.example/dtjob/trainer:0.1.0\n")
    calls.unlink()
    assert CliRunner().invoke(app, argv).exit_code == 0
    assert calls.read_text().count("docker build") == 1
