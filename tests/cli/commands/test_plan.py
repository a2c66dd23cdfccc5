from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtjob_cli.main import app
from tests.support.builders import new_ledger, tiny_plan
from tests.support.checkout import DIGITS


def _plan(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", str(file), *arguments], env={"COLUMNS": "120"})


def _changed(folder: Path, old: str, new: str) -> Path:
    text = DIGITS.read_text()
    assert old in text
    file = folder / "changed.yaml"
    file.write_text(text.replace(old, new))
    return file


def test_the_plan_of_the_example_is_the_designs() -> None:
    result = _plan(DIGITS, "-o", "json")

    assert result.exit_code == 0
    found = json.loads(result.stdout)
    plan = found["plan"]
    assert plan["noiseMultiplier"] == pytest.approx(2.2035, abs=1e-3)
    assert plan["epsilonGuaranteed"] <= 8
    assert (plan["leaseSteps"], plan["replayReserveSteps"], plan["reservedDraws"]) == (10, 30, 366)
    assert found["step"] == {
        "ranks": 2,
        "rows": 350,
        "physicalBatchSize": 175,
        "microBatches": 1,
    }
    assert found["warnings"] == []


def test_people_get_a_table_with_every_symbol() -> None:
    result = _plan(DIGITS)

    assert result.exit_code == 0
    for symbol in ("σ", "ε guaranteed", "δ", "q", "T", "R", "n", "Q", "W", "P", "M"):
        assert f" {symbol} " in result.stdout
    assert "2.2035" in result.stdout


def test_a_narrow_terminal_cuts_no_figure() -> None:
    result = CliRunner().invoke(app, ["plan", str(DIGITS)], env={"COLUMNS": "32"})

    assert result.exit_code == 0
    assert "…" not in result.stdout
    assert "2.2035" in result.stdout
    assert "dp-accounting 0.6.0" in result.stdout


def test_a_large_delta_is_warned_of(tmp_path: Path) -> None:
    result = _plan(_changed(tmp_path, "delta: 1e-5", "delta: 2e-4"))

    assert result.exit_code == 0
    assert "warning: spec.privacy.delta" in result.stdout


def test_an_impossible_target_is_bad_input_with_a_remedy(tmp_path: Path) -> None:
    result = _plan(_changed(tmp_path, "epsilon: 8", "epsilon: 1e-9"))

    assert result.exit_code == 2
    assert "error (ImpossiblePlan): spec.privacy.epsilon" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("length", ["steps: 10000000", "epochs: 1781800"])
def test_a_job_that_is_too_long_is_told_the_limit(tmp_path: Path, length: str) -> None:
    """Not even one whose steps alone would do: the value that is refused stands in no file."""
    result = _plan(_changed(tmp_path, "steps: 336", length))

    assert result.exit_code == 2
    assert "spec.training.steps: Invalid value: 100" in result.stderr
    assert "at most 10000000" in result.stderr
    assert "spec.privacy.replayReserveSteps" in result.stderr


def test_a_failure_is_one_object_for_programs(tmp_path: Path) -> None:
    result = _plan(_changed(tmp_path, "epsilon: 8", "epsilon: -8"), "-o", "json")

    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["exitCode"] == 2
    assert answer["error"]["reason"] == "InvalidManifest"
    assert "spec.privacy.epsilon" in answer["error"]["message"]


def test_without_privacy_there_is_no_epsilon_but_the_steps(tmp_path: Path) -> None:
    file = _changed(
        tmp_path,
        "    epsilon: 8\n    delta: 1e-5\n    maxGradNorm: 1.0\n",
        "    mode: Disabled\n",
    )

    told = _plan(file)
    found = json.loads(_plan(file, "-o", "json").stdout)["plan"]

    assert "no guarantee" in told.stdout
    assert found["mode"] == "Disabled"
    assert found["steps"] == 336
    assert "noiseMultiplier" not in found


def test_another_kind_is_no_job(tmp_path: Path) -> None:
    file = _changed(tmp_path, "kind: DistributedTrainingJob", "kind: Deployment")

    result = _plan(file)

    assert result.exit_code == 2
    assert result.stderr.startswith("error (InvalidManifest): ")
    assert "Deployment" in result.stderr


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"

    result = _plan(missing)

    assert result.exit_code == 2
    assert f"error (UnreadableManifest): {missing}: No such file or directory" in result.stderr


def test_a_ledger_is_no_job(tmp_path: Path) -> None:
    """Though its manifest is valid."""
    file = tmp_path / "ledger.yaml"
    file.write_text(json.dumps(new_ledger(tiny_plan()).to_dict()))

    result = _plan(file)

    assert result.exit_code == 2
    assert result.stderr.startswith("error (NotAJob): ")
    assert "is a PrivacyLedger, not a DistributedTrainingJob" in result.stderr


def test_a_name_that_only_a_cluster_makes_is_missing_here(tmp_path: Path) -> None:
    result = _plan(_changed(tmp_path, "name: digits", "generateName: digits-"))

    assert result.exit_code == 2
    assert result.stderr.startswith("error (NameMissing): ")
    assert result.stderr.endswith("Give the job a metadata.name.\n")
