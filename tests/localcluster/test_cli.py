"""What a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from localcluster.cli import app
from tests.support.programs import calls, noted, without_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


def test_the_command_shows_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    result = CliRunner().invoke(app, ["up", "--provider", "kind"])
    assert result.exit_code == 1
    assert "error: no cluster can run here: kind: no Docker or Podman engine" in result.output
    assert "Traceback" not in result.output
    bad = CliRunner().invoke(app, ["up", "--name", "No_Name", "--provider", "kind"])
    assert "'No_Name' can't be the name of a cluster" in bad.output


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        (["--metrics"], "Leave it out and install metrics-server there, or add --provider local"),
        (["--nodes", "2"], "Leave it out, or add --provider local"),
    ],
)
def test_a_cluster_of_another_kind_is_not_started_where_what_it_lacks_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str], instead: str
) -> None:
    without_programs(tmp_path, monkeypatch)
    for name in ("docker", "kind", "kubectl"):
        noted(tmp_path, name, "exit 0")
    result = CliRunner().invoke(app, ["up", *option, "--provider", "kind"])
    assert result.exit_code == 1
    assert f"{option[0]} is of provider local alone, and this cluster is of kind" in result.output
    assert instead in result.output
    assert not [call for call in calls(tmp_path) if call.startswith("kind create")]


@pytest.mark.parametrize("change", ["kill", "start"])
def test_a_node_of_a_cluster_that_does_not_run_is_named_as_such(change: str) -> None:
    result = CliRunner().invoke(app, ["node", change, "2", "--name", "none"])
    assert result.exit_code == 1
    assert "error: cluster none does not run" in result.output
