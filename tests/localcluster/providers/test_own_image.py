"""Images of users are built on the project's."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from localcluster.cli import app
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


def test_an_image_of_ones_own_is_built_on_the_trainer_of_this_checkout_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, own = tmp_path / "calls", tmp_path / "survey"
    with_programs(tmp_path, monkeypatch, "kubectl")
    for name in ("docker", "kind"):
        program(
            tmp_path,
            name,
            f'echo "{name} $*" >> {calls}\n'
            'for a; do case "$a" in --iidfile=*) echo sha256:0123456789abcdef > "${a#*=}";; '
            f"--kubeconfig=*) : > {tmp_path}/exported;; esac; done",
        )
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
