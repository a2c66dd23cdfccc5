"""Whatever the output streams are, a command says what it can and ends as it should."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dtjob_accounting.process import PldProcess
from dtjob_api.derive import ledger_spec
from dtjob_api.ledger.privacy_ledger import Outcome, OutcomeState, PrivacyLedger
from dtjob_api.model import ObjectMeta
from dtjob_api.reasons import Reason
from dtjob_cli import manifests, privacy_report
from dtjob_cli.runs import run_directory
from dtjob_cli.standard_streams import SPELLED
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.builders import UID
from tests.support.checkout import DIGITS, TOOLS
from tests.support.commands.stored_runs import PLAN, drawn

pytestmark = pytest.mark.slow

PYTHON = sys.executable
NARROW = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    # A C locale without what Python has done about it since 3.7.
    "LANG=C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> run_directory.RunDirectory:
    """A run that has succeeded, its report saved as `dtjob run` leaves it."""
    job = manifests.job(manifests.read(DIGITS), UID)
    run = run_directory.create(tmp_path_factory.mktemp("rüns"), f"digits-{UID[:8]}", DIGITS)
    outcome = Outcome(
        state=OutcomeState.SUCCEEDED,
        reason=Reason.COMPLETED,
        message="336 of 336 steps; ε 7.6130 at δ = 1e-05 …",
        time=datetime.now(UTC),
        result={"evaluation": {"step": 336, "accuracy": 0.9333}},
    )
    status = drawn(336).model_copy(update={"outcome": outcome})
    ledger = PrivacyLedger(
        metadata=ObjectMeta(name=run.path.name), spec=ledger_spec(job, PLAN), status=status
    )
    FileLedger(run.ledger).create(ledger)
    with PldProcess() as accountant:
        privacy_report.save(run, privacy_report.build(ledger, accountant, run))
    return run


def dtjob(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    variables = options.pop("variables", {})
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [PYTHON, "-m", "dtjob_cli.main", *map(str, arguments)],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        **given,
    )


def _but_progress(told: bytes) -> bytes:
    """What the standard error has besides a line that says what takes a while."""
    lines = told.splitlines(keepends=True)
    return b"".join(line for line in lines if b"] computing epsilon" not in line)


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("kind", NARROW)
def test_a_report_is_spelled_out_where_the_encoding_is_narrow(
    run: run_directory.RunDirectory, kind: str
) -> None:
    shown = dtjob("report", run.path, variables=NARROW[kind])

    assert (shown.returncode, _but_progress(shown.stderr)) == (0, b"")
    text = shown.stdout.decode("latin-1")
    for words in ("epsilon guaranteed", "epsilon spent", "sigma = 2.2035", "delta"):
        assert words in text
    assert "?" not in text
    # What is beside the labels stays in one column.
    (steps,) = [line for line in text.splitlines() if line.startswith(" steps")]
    (spent,) = [line for line in text.splitlines() if line.startswith(" epsilon spent")]
    assert steps.index("0 of 336") == spent.index("7.6132")


@pytest.mark.parametrize("kind", NARROW)
def test_programs_read_the_same_on_every_stream(run: run_directory.RunDirectory, kind: str) -> None:
    shown = dtjob("report", run.path, "-o", "json", variables=NARROW[kind])

    assert json.loads(shown.stdout) == json.loads(run.privacy_report.read_text(encoding="utf-8"))
    assert "rüns" in json.loads(shown.stdout)["run"]


@pytest.mark.parametrize("kind", NARROW)
def test_a_plan_is_spelled_out_too(kind: str) -> None:
    shown = dtjob("plan", DIGITS, variables=NARROW[kind])

    assert shown.returncode == 0, shown.stderr
    text = shown.stdout.decode("latin-1")
    for words in ("sigma", "epsilon guaranteed", "delta", "2.2035"):
        assert words in text
    assert b"calibrating the noise ..." in shown.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("no-such-command",), ()])
def test_help_and_usage_errors_need_no_wide_encoding(arguments: tuple[str, ...]) -> None:
    shown = dtjob(*arguments, variables=NARROW["ascii"])

    assert shown.returncode == (0 if "--help" in arguments else 2)
    assert b"Traceback" not in shown.stderr
    assert b"dtjob" in shown.stdout + shown.stderr


def test_an_error_is_told_in_a_narrow_encoding_with_a_name_that_is_no_utf_8(
    tmp_path: Path,
) -> None:
    for variables in ({}, NARROW["ascii"]):
        shown = dtjob("plan", tmp_path / os.fsdecode(b"\xff-\xce\xb5.yaml"), variables=variables)
        assert shown.returncode == 2
        assert b"UnreadableManifest" in shown.stderr
        assert b"udcff-" in shown.stderr


COMMANDS = ["report", "report -o json", "validate", "validate -o json"]


def _words(command: str, run: run_directory.RunDirectory) -> list[object]:
    name, *options = command.split()
    return [name, run.path if name == "report" else DIGITS, *options]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_left_had_what_it_wanted(
    run: run_directory.RunDirectory, closed_pipe: int, command: str
) -> None:
    shown = dtjob(*_words(command, run), stdout=closed_pipe)

    assert (shown.returncode, _but_progress(shown.stderr)) == (0, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_who_only_prints_and_can_not_says_so(
    run: run_directory.RunDirectory, full_disk: int, command: str
) -> None:
    shown = dtjob(*_words(command, run), stdout=full_disk)

    assert shown.returncode == 3
    assert b"NotPrinted" in shown.stderr
    assert b"No space left on device" in shown.stderr
    assert b"Traceback" not in shown.stderr
    assert b"Exception ignored" not in shown.stderr


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "run --help", "ledger restore --help"], ids=str
)
def test_help_that_can_not_be_printed_says_so(
    full_disk: int, closed_pipe: int, arguments: str
) -> None:
    shown = dtjob(*arguments.split(), stdout=full_disk)

    assert shown.returncode == 3
    assert b"NotPrinted" in shown.stderr
    assert b"Traceback" not in shown.stderr
    shown = dtjob(*arguments.split(), stdout=closed_pipe)
    assert (shown.returncode, shown.stderr) == (0, b"")


def test_what_is_wrong_outweighs_that_it_can_not_be_said(tmp_path: Path, full_disk: int) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: Pod\n")

    assert dtjob("validate", bad, stdout=full_disk, stderr=full_disk).returncode == 2
    assert dtjob("plan", bad, "-o", "json", stdout=full_disk, stderr=full_disk).returncode == 2
    assert b"InvalidManifest" in dtjob("plan", bad, "-o", "json", stdout=full_disk).stderr


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_command_without_standard_streams_says_what_it_can(
    run: run_directory.RunDirectory, closed: tuple[int, ...]
) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'"$0" -m dtjob_cli.main report "$1" {redirections}',
            sys.executable,
            run.path,
        ],
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == (3 if 1 in closed else 0), done.stderr
    assert b"Traceback" not in done.stderr
    assert (b"7.6132" in done.stdout) == (1 not in closed)
    assert (b"NotPrinted" in done.stderr) == (closed == (1,))


def test_a_ledger_from_a_standard_input_that_is_closed_is_none() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m dtjob_cli.main report - <&-', PYTHON],
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 2
    assert b"the standard input is no JSON" in done.stderr


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_terminal_will_do(run: run_directory.RunDirectory, term: str, encoding: str) -> None:
    ours, theirs = pty.openpty()
    variables = {"TERM": term, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    done = dtjob("report", run.path, stdout=theirs, stderr=theirs, variables=variables)
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # all that was told has been read
        while chunk := os.read(ours, 1 << 20):
            told += chunk
    shown = told.decode()
    os.close(ours)

    assert done.returncode == 0, shown
    assert ("ε spent" if encoding == "utf-8" else "epsilon spent") in shown
    assert ("\x1b[" in shown) == (term != "dumb")


@pytest.mark.parametrize("kind", ["closed_pipe", "full_disk"])
def test_the_tools_of_the_checkout_end_as_they_would(
    kind: str, request: pytest.FixtureRequest
) -> None:
    descriptor = request.getfixturevalue(kind)

    def ended(where: int) -> int:
        done = subprocess.run(
            [PYTHON, "-m", "localcluster", "status", "--name", "no-such", "--provider", "local"],
            env={**os.environ, **NARROW["ascii"], "PYTHONPATH": str(TOOLS)},
            stdout=where,
            stderr=where,
            check=False,
            timeout=120,
        )
        return done.returncode

    usual = ended(subprocess.DEVNULL)
    assert usual in (1, 3)  # none can run here, or none of this name does
    assert ended(descriptor) == usual


def test_what_is_spelled_is_ascii() -> None:
    assert all(spelling.isascii() for spelling in SPELLED.values())
