"""`dtjob run` as a user types it: real workers, real signals, real crashes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.checkout import DIGITS, TASKS
from tests.support.commands import run_files
from tests.support.commands.command_process import Command, processes, wait_until_gone

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("dtjob run"),
]


class Place:
    """A folder with a manifest, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "digits.yaml"
        shutil.copyfile(DIGITS, self.manifest)
        self.commands: list[Command] = []

    def dtjob(self, *arguments: str) -> Command:
        command = Command(arguments, self.folder)
        self.commands.append(command)
        return command

    def slow_down(self) -> Path:
        """Have steps take half a second while the file is there that is returned.

        At its full speed the job may have ended before a test can do what it is about.
        """
        pace = self.folder / "slow"
        pace.touch()
        args = f"{{seconds: 0.5, while: {pace}}}"
        task = f"entrypoint: slow_task:paced\n    args: {args}"
        self.edit("entrypoint: dtjob_trainer.tasks.digits:task", task)
        return pace

    def run(self) -> Path:
        (found,) = (self.folder / "dtjob-runs").iterdir()
        return found

    def ledger(self) -> PrivacyLedger:
        return FileLedger(self.run() / "ledger").read().ledger

    def edit(self, old: str, new: str) -> None:
        text = self.manifest.read_text()
        assert old in text
        self.manifest.write_text(text.replace(old, new))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("PYTHONPATH", str(TASKS))
    place = Place(tmp_path)
    yield place
    for command in place.commands:
        if command.process.poll() is None:
            command.kill_everything()


def _json(command: Command) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads("".join(command.out))
    return answer


def test_digits_from_the_manifest_to_the_report(place: Place) -> None:
    """Keys are fresh in each run: over 200 of them accuracy was 0.9458 ± 0.0062, least 0.9306, so
    that 0.915 (5 standard deviations) is missed by chance about once in 10⁶ runs.
    """
    command = place.dtjob("run", "digits.yaml", "-o", "json")

    assert command.wait() == 0, command
    report = _json(command)
    assert report["state"] == "Succeeded"
    assert report["evaluation"]["accuracy"] >= 0.915
    assert report["step"] == 336
    assert report["spent"]["draws"] == 336
    assert report["spent"]["epsilon"] < report["plan"]["epsilonGuaranteed"] <= 8
    assert json.loads((place.run() / "report.json").read_text()) == report
    assert {path.name for path in place.run().iterdir()} == run_files.documented()
    assert any("training: step" in line for line in command.err)

    again = place.dtjob("report", str(place.run()))
    assert again.wait() == 0, again
    words = "".join(again.out)
    for figure in ("2.2035", "7.613", "AddRemove", "this run only", report["initialModel"]):
        assert figure in words, again

    resumed = place.dtjob("run", "digits.yaml", "--resume")
    assert resumed.wait() == 0, resumed
    assert "already ended" in "".join(resumed.err)
    assert "accuracy" in "".join(resumed.out)
    assert place.ledger().status.charged == 336


def test_ctrl_c_checkpoints_and_resume_goes_on_with_other_workers(place: Place) -> None:
    pace = place.slow_down()
    first = place.dtjob("run", "digits.yaml", "--workers", "2")
    first.wait_for("training: step")
    first.interrupt()

    assert first.wait() == 130, first
    pace.unlink()
    assert f"--resume dtjob-runs/{place.run().name}" in "".join(first.err)
    stopped = place.ledger().status
    assert stopped.checkpoint is not None
    assert stopped.lease is not None
    assert 0 < stopped.checkpoint.step < 336
    assert stopped.lease.closed_at == stopped.checkpoint.step

    second = place.dtjob("run", "digits.yaml", "--resume", "--workers", "1", "-o", "json")
    assert second.wait() == 0, second
    report = _json(second)
    assert report["step"] == 336
    assert report["spent"]["draws"] == 336  # an orderly stop costs nothing (rule 10)
    assert place.ledger().spec.run.workers == 1
    assert place.ledger().spec.run.generation == 2


def test_kill_nine_of_everything_and_resume_with_a_truthful_epsilon(place: Place) -> None:
    pace = place.slow_down()
    first = place.dtjob("run", "digits.yaml")
    first.wait_for("training: step")
    first.kill_everything()
    pace.unlink()
    crashed = place.ledger().status
    done = crashed.checkpoint.step if crashed.checkpoint else 0
    assert crashed.charged > done  # a lease was open

    second = place.dtjob("run", "digits.yaml", "--resume", "-o", "json")
    assert second.wait() == 0, second
    report = _json(second)
    assert report["step"] == 336
    # Rule 10: what was leased when all died is spent whole, used or not.
    assert report["spent"]["draws"] == crashed.charged + (336 - done)
    assert report["spent"]["epsilon"] > 7.613
    assert report["attempts"] == 2


def test_a_killed_command_leaves_workers_that_stop_in_order(place: Place) -> None:
    pace = place.slow_down()
    first = place.dtjob("run", "digits.yaml")
    first.wait_for("training: step")
    workers = first.workers()
    first.process.kill()
    first.wait()

    second = place.dtjob("run", "digits.yaml", "--resume", "-o", "json")
    wait_until_gone(workers)
    pace.unlink()
    assert second.wait() == 0, second
    assert _json(second)["spent"]["draws"] == 336


def test_a_dead_worker_is_replaced_and_the_run_succeeds(place: Place) -> None:
    pace = place.slow_down()
    command = place.dtjob("run", "digits.yaml", "-o", "json")
    command.wait_for("training: step")
    victim = command.workers()[1]
    members = [pid for pid, (_, session) in processes().items() if session == victim]
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    pace.unlink()

    assert command.wait() == 0, command
    assert "SIGKILL; started again: somebody else ended it" in "".join(command.err)
    assert _json(command)["attempts"] == 2


def test_a_second_ctrl_c_kills_workers_that_do_not_stop(place: Place) -> None:
    place.slow_down()
    command = place.dtjob("run", "digits.yaml")
    command.wait_for("σ = ")
    workers = command.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    command.interrupt()
    command.wait_for("stopping at the next step boundary")
    command.interrupt()

    assert command.wait() == 130, command
    wait_until_gone(workers)


def test_ctrl_c_before_the_first_draw_leaves_nothing(place: Place) -> None:
    # Calibrated for 15 s, and not for 2.
    place.edit("steps: 336", "steps: 900000")
    place.edit("epsilon: 8", "epsilon: 0.5")
    place.edit("delta: 1e-5", "delta: 1e-9")
    place.edit("datasetSize: 1437", "datasetSize: 25600000")
    command = place.dtjob("run", "digits.yaml")
    command.wait_for("calibrating")
    os.kill(command.workers()[1], signal.SIGKILL)
    command.wait_for("worker 1 ended with SIGKILL; started again")
    command.interrupt()

    assert command.wait() == 130, command
    assert "no privacy was spent" in "".join(command.err)


def test_an_entrypoint_that_does_not_import_is_named(place: Place) -> None:
    place.edit("dtjob_trainer.tasks.digits:task", "no_such_package.tasks:task")
    command = place.dtjob("run", "digits.yaml")

    assert command.wait() == 1, command
    words = "".join(command.err)
    assert "no_such_package" in words
    assert "Traceback" not in words


def test_an_impossible_plan_is_refused_and_leaves_nothing(place: Place) -> None:
    place.edit("epsilon: 8", "epsilon: 1e-9")
    command = place.dtjob("run", "digits.yaml")

    assert command.wait() == 2, command
    assert "spec.privacy.epsilon" in "".join(command.err)
    assert not list((place.folder / "dtjob-runs").iterdir())
