"""`dtjob report` of a ledger alone: nothing but itself tells whether it is the newest."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import check_mechanism
from dtjob_cli.main import app
from dtjob_cli.runs.run_directory import RunDirectory
from tests.support.commands.instant_accounts import Accounts
from tests.support.commands.stored_runs import OUTCOME, drawn, leased, stored_run

CHARGED = 20
ONLY_IF = "no newer version of this ledger was ever written"

pytestmark = pytest.mark.usefixtures("accounts")


def report(source: Path | str, *options: str, stdin: bytes | None = None) -> Result:
    arguments = ["report", str(source), *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False, input=stdin)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)
    return run


def version(run: RunDirectory) -> Path:
    (file,) = run.ledger.iterdir()
    return file


def _in_a_file(run: RunDirectory) -> tuple[str, bytes | None]:
    return str(version(run).rename(run.path.parent / "ledger.json")), None


def _on_the_standard_input(run: RunDirectory) -> tuple[str, bytes | None]:
    return "-", version(run).read_bytes()


@pytest.mark.parametrize("given", [_in_a_file, _on_the_standard_input])
def test_a_ledger_without_an_outcome_says_on_what_its_figures_rest(
    run: RunDirectory, given: Callable[[RunDirectory], tuple[str, bytes | None]]
) -> None:
    source, stdin = given(run)
    told = report(source, stdin=stdin)
    assert told.exit_code == 0
    assert f"only if {ONLY_IF}" in " ".join(told.stdout.split())
    assert (
        ONLY_IF in json.loads(report(source, "-o", "json", stdin=stdin).stdout)["spent"]["onlyIf"]
    )


def test_a_ledger_with_its_outcome_needs_no_such_word(tmp_path: Path) -> None:
    """After it no draw can be hidden."""
    ended = stored_run(tmp_path, drawn(CHARGED).model_copy(update={"outcome": OUTCOME}))
    stdin = version(ended).read_bytes()
    assert "only if" not in report("-", stdin=stdin).stdout
    assert "onlyIf" not in json.loads(report("-", "-o", "json", stdin=stdin).stdout)["spent"]


def test_nor_does_a_run_whose_volume_was_asked(run: RunDirectory) -> None:
    assert "only if" not in report(run.path).stdout
    assert "onlyIf" not in json.loads(report(run.path, "-o", "json").stdout)["spent"]


def test_who_follows_the_remedy_of_a_lost_volume_is_told_so_before_and_after(
    tmp_path: Path,
) -> None:
    """An older ledger whose volume is not mounted is refused with the same words."""
    run = stored_run(tmp_path, drawn(CHARGED))
    refused = report(run.path)
    assert refused.exit_code == 3
    assert "true only if no newer version of it was ever written: " in refused.stderr
    command, _, file = refused.stderr.strip().rpartition("dtjob ")[2].partition(" < ")
    assert command == "report -"
    followed = report("-", stdin=Path(*shlex.split(file)).read_bytes())
    assert f"only if {ONLY_IF}" in " ".join(followed.stdout.split())


def _link(run: RunDirectory) -> Path:
    link = run.path.parent / "link.json"
    link.symlink_to(version(run))
    return link


def _link_to_its_folder(run: RunDirectory) -> Path:
    link = run.path.parent / "linked"
    link.symlink_to(run.ledger)
    return link / version(run).name


def _the_folder_a_link(run: RunDirectory) -> Path:
    run.ledger.rename(run.path.parent / "elsewhere")
    run.ledger.symlink_to(run.path.parent / "elsewhere")
    return version(run)


def _links_upon_links(run: RunDirectory) -> Path:
    return _link(_moved(run))


def _moved(run: RunDirectory) -> RunDirectory:
    _the_folder_a_link(run)
    return run


def _up_and_down(run: RunDirectory) -> Path:
    (run.ledger / "sub").mkdir()
    return run.ledger / "sub" / ".." / "0000000001.json"


def _relative(run: RunDirectory) -> Path:
    os.chdir(run.state)
    return Path("../ledger/0000000001.json")


@pytest.mark.parametrize(
    "named",
    [_link, _link_to_its_folder, _the_folder_a_link, _links_upon_links, _up_and_down, _relative],
)
def test_a_version_of_a_run_is_one_by_whatever_name(
    run: RunDirectory,
    named: Callable[[RunDirectory], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its volume would not be asked."""
    monkeypatch.chdir(run.path)
    told = report(named(run))
    assert told.exit_code == 2
    assert "is one version of a run's ledger" in told.stderr
    assert "Give the run's directory: dtjob report " in told.stderr
    directory = shlex.split(told.stderr.strip().rpartition("dtjob report ")[2])
    assert Path(*directory).samefile(run.path)


def test_a_copy_of_a_version_is_none(run: RunDirectory) -> None:
    copy = run.path.parent / "0000000001.json"
    copy.write_bytes(version(run).read_bytes())
    assert report(copy).exit_code == 0


def _without_noise(segment: dict[str, Any]) -> None:
    del segment["noiseMultiplier"]


def _without_a_rate(segment: dict[str, Any]) -> None:
    del segment["sampleRate"]


def _more_noise(segment: dict[str, Any]) -> None:
    segment["noiseMultiplier"] *= 2


def _a_smaller_rate(segment: dict[str, Any]) -> None:
    segment["sampleRate"] /= 2


@pytest.mark.parametrize("change", [_without_noise, _without_a_rate, _more_noise, _a_smaller_rate])
def test_a_ledger_whose_segments_are_not_of_its_plan_states_no_epsilon(
    run: RunDirectory, change: Callable[[dict[str, Any]], None]
) -> None:
    ledger = json.loads(version(run).read_bytes())
    change(ledger["status"]["segments"][0])
    told = report("-", stdin=json.dumps(ledger).encode())
    assert (told.exit_code, told.stdout) == (2, "")
    assert "error (LedgerUnreadable): the ledger of job digits contradicts itself: " in told.stderr
    assert "must have the noiseMultiplier and the sampleRate of spec.plan" in told.stderr
    assert "no draw was made with others. No epsilon" in told.stderr


@pytest.mark.parametrize("in_a_run", [False, True])
def test_a_plan_that_the_accountant_refuses_is_refused(
    run: RunDirectory, accounts: Accounts, in_a_run: bool
) -> None:
    with pytest.raises(PlanError) as refusal:
        check_mechanism(1e6, 0.1, CHARGED)
    accounts.refusal = refusal.value
    source, stdin = (run.path, None) if in_a_run else ("-", version(run).read_bytes())
    told = report(source, stdin=stdin)
    assert (told.exit_code, told.stdout) == (3 if in_a_run else 2, "")
    assert "error (LedgerUnreadable): the ledger of job digits has a plan " in told.stderr
    assert "noiseMultiplier: Invalid value: 1000000.0: must lie between" in told.stderr
    assert "No epsilon can be stated." in told.stderr


@pytest.mark.parametrize("promised", [None, 1e308, 1e400])
def test_a_promise_that_is_none_is_told_as_none(run: RunDirectory, promised: float | None) -> None:
    ledger = json.loads(version(run).read_bytes())
    ledger["spec"]["plan"]["epsilonGuaranteed"] = promised
    told = report("-", stdin=json.dumps(ledger).encode())
    assert told.exit_code == 0
    words = " ".join(told.stdout.split())
    assert "ε spent 1.5000" in words
    assert ("ε guaranteed unbounded: nothing is claimed" in words) == (promised is not None)
