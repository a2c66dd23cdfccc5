"""What a newcomer types first must answer at once and say how commands end."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from dtjob_cli.main import app

HEAVY = {"torch", "opacus", "numpy", "scipy", "dp_accounting", "celpy", "httpx"}


def test_the_help_names_every_command_and_every_exit_code() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})

    assert result.exit_code == 0
    for word in (
        "validate",
        "plan",
        "check-data",
        "run",
        "report",
        "logs",
        "result",
        "ledger",
        "130",
        "refused",
    ):
        assert word in result.output


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"dtjob {version('dtjob')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["check-data", "--help"],
        ["ledger", "--help"],
        ["--show-completion"],
    ],
)
def test_help_and_completion_import_nothing_heavy(arguments: list[str]) -> None:
    # Which modules are loaded decides how long it takes; a clock on a busy machine does not tell.
    script = (
        "import sys\n"
        "from dtjob_cli.main import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "finally:\n"
        f"    print('LOADED', *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "SHELL": "/bin/bash",
            "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
        },
    )

    assert done.stderr.splitlines()[-1] == "LOADED"


def test_a_command_that_does_not_exist_is_bad_input() -> None:
    assert CliRunner().invoke(app, ["train"]).exit_code == 2
