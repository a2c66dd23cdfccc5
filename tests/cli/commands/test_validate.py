from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from dtjob_cli.main import app
from tests.support.checkout import DIGITS


def test_the_example_is_valid() -> None:
    result = CliRunner().invoke(app, ["validate", str(DIGITS)])

    assert result.exit_code == 0
    assert result.stdout == f"{DIGITS}: valid\n"


def test_each_bad_file_is_told_with_field_and_remedy(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    text = DIGITS.read_text().replace("epsilon: 8", "epsilon: -1")
    bad.write_text(text.replace("batchSize: 256", "batchSize: 2000"))

    result = CliRunner().invoke(app, ["validate", str(DIGITS), str(bad)])

    assert result.exit_code == 2
    assert f"{DIGITS}: valid" in result.stdout
    assert "spec.privacy.epsilon: Invalid value: -1" in result.stderr
    assert "spec.training.batchSize: Invalid value" in result.stderr
    assert "must be greater than 0" in result.stderr


def test_programs_get_one_object(tmp_path: Path) -> None:
    torn = tmp_path / "torn.yaml"
    torn.write_text("spec: [1, 2\n")
    missing = tmp_path / "missing.yaml"

    result = CliRunner().invoke(
        app, ["validate", str(DIGITS), str(torn), str(missing), "-o", "json"]
    )

    assert result.exit_code == 2
    files = json.loads(result.stdout)["files"]
    assert [(entry["file"], entry["valid"]) for entry in files] == [
        (str(DIGITS), True),
        (str(torn), False),
        (str(missing), False),
    ]
    assert f"{torn}:2:1" in files[1]["errors"][0]
    assert "No such file" in files[2]["errors"][0]


def test_arguments_that_only_a_run_on_this_machine_takes_are_told(tmp_path: Path) -> None:
    """The API server takes them too, and the operator refuses the job for good."""
    large = tmp_path / "large.yaml"
    text = DIGITS.read_text()
    before, field, after = text.partition("    entrypoint:")
    assert field
    large.write_text(f"{before}    args: {{vocabulary: {'x' * 70_000}}}\n{field}{after}")

    result = CliRunner().invoke(app, ["validate", str(large)])

    assert result.exit_code == 2
    assert "spec.training.args: Invalid value: 70017 bytes as JSON, of at most" in result.stderr


def test_mistakes_of_three_kinds_take_one_round(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    text = DIGITS.read_text().replace("batchSize: 256", "batchsize: 256")
    text = text.replace("epsilon: 8", 'epsilon: "8"').replace("maxGradNorm: 1.0", "maxGradNorm: -1")
    bad.write_text(text)

    result = CliRunner().invoke(app, ["validate", str(bad)])

    assert result.exit_code == 2
    assert '"spec.training.batchsize"; did you mean batchSize?' in result.stderr
    assert "; write epsilon: 8\n" in result.stderr
    assert "spec.privacy.maxGradNorm: Invalid value: -1" in result.stderr
    planned = CliRunner().invoke(app, ["plan", str(bad)])
    assert "; write epsilon: 8\n" in planned.stderr
