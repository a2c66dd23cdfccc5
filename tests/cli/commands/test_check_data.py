"""`dtjob check-data`: what it prints, how it ends, and that it finds tasks as a run does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from dtjob_cli.commands import check_data as command
from dtjob_cli.main import app
from dtjob_cli.runs import data_process
from tests.support.builders import new_job
from tests.support.checkout import DIGITS
from tests.support.commands.command_process import Command

GOOD: dict[str, Any] = {
    "records": 1437,
    "asked": 1437,
    "tried": 1437,
    "bad": 0,
    "faults": [],
    "ranges": {"pixels": {"least": 0.0, "greatest": 16, "low": 0.0, "high": 1.0}},
    "refused": [],
}
FAULT = {
    "field": "pixels",
    "reason": "out of range",
    "count": 12,
    "first": list(range(10)),
    "example": "pixels leaves its range [0.0, 1.0]\x1b[2K",
}


def invoked(
    monkeypatch: pytest.MonkeyPatch, *notes: dict[str, Any], end: str, as_json: bool = False
) -> Any:
    """The command, with notes of a process that did not run."""

    @contextmanager
    def started(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(notes=lambda: iter(notes), end=end)

    monkeypatch.setattr(data_process, "started", started)
    output = ["-o", "json"] if as_json else []
    return CliRunner().invoke(app, ["check-data", str(DIGITS), *output])


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({}, 0, "1437 (datasetSize 1437)"),
        ({"bad": 12, "faults": [FAULT]}, 1, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"),
        ({"refused": ["it is a tuple"]}, 1, "Training would refuse these data: it is a tuple"),
        ({"records": 1500}, 1, "More records than privacy.datasetSize"),
        ({"asked": 100, "tried": 100}, 0, "100, evenly spread"),
    ],
)
def test_exit_codes_and_words(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], code: int, words: str
) -> None:
    note = {"findings": {**GOOD, **changes}, "done": True}
    text = invoked(monkeypatch, note, end="exit code 0")
    assert text.exit_code == code
    assert words in " ".join(text.stdout.split())
    assert "no epsilon covers it" in text.stdout
    assert "\x1b" not in text.stdout


FOUND = {**GOOD, "tried": 60, "bad": 12, "faults": [FAULT]}


@pytest.mark.parametrize(
    ("reading", "changes", "words"),
    [
        (
            60,
            {},
            "Reading record 60 ended the process by SIGSEGV: a job would end there too, whenever "
            "the record is drawn. The 1,376 that come after it are not tried. Correct the record",
        ),
        (60, {}, "bad 13, of which 1 would end a job, each other adds nothing"),
        (60, {"bad": 0, "faults": []}, "bad 1, of which 1 would end a job field reason"),
        (1436, {"tried": 1436}, "whenever the record is drawn. Correct the record"),
        (None, {"tried": 1437}, "All records were read once. When some were read again"),
    ],
)
def test_what_a_death_means_is_said(
    monkeypatch: pytest.MonkeyPatch, reading: int | None, changes: dict[str, Any], words: str
) -> None:
    note = {"findings": {**FOUND, **changes}, "reading": reading}
    text = invoked(monkeypatch, note, end="SIGSEGV")
    assert text.exit_code == 1
    assert words in " ".join(text.stdout.split())


def test_programs_get_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = {**GOOD, "bad": 12, "faults": [FAULT]}
    shown = invoked(
        monkeypatch, {"findings": findings, "done": True}, end="exit code 0", as_json=True
    )
    assert shown.exit_code == 1
    found = json.loads(shown.stdout)
    assert {name: found[name] for name in GOOD} == findings
    assert found["private"] == command.PRIVATE


def test_a_task_that_fails_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    note = {"failed": {"reason": "TaskFailed", "message": "Task.dataset() raised OSError: torn"}}
    ended = invoked(monkeypatch, note, end="exit code 0")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "error (TaskFailed): Task.dataset() raised OSError: torn" in ended.stderr


def test_a_process_that_dies_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = invoked(monkeypatch, {"stage": "importing torch"}, end="SIGKILL")
    assert ended.exit_code == 2
    assert "error (ProcessDied): " in ended.stderr
    assert "SIGKILL" in ended.stderr


TASK = """
import os, signal, time
from dtjob_trainer.tasks import digits
from dataclasses import replace
import odd_helper  # beside it, and in no other folder

class Records:
    def __init__(self, records):
        self.records = records

    def __len__(self):
        return 100

    def __getitem__(self, index):
        if index == 60:
            print("at 60", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV) if "ODD" in os.environ else time.sleep(300)
        record = self.records[index]
        return {**record, "pixels": record["pixels"] * 99} if index == 7 else record

def task(args):
    task = digits.task(args)
    return replace(task, dataset=lambda: Records(task.dataset()))
"""


def folder_of_a_task(folder: Path, env: list[dict[str, str]]) -> None:
    (folder / "odd_task.py").write_text(TASK)
    (folder / "odd_helper.py").write_text("")
    job = new_job("odd", training={"entrypoint": "odd_task:task"})
    job["spec"]["workers"]["template"] = {"env": env}
    YAML().dump(job, folder / "job.yaml")


@pytest.mark.processes
def test_a_record_that_kills_the_process_is_found_by_its_number(tmp_path: Path) -> None:
    folder_of_a_task(tmp_path, [{"name": "ODD", "value": "1"}])
    ended = Command(["check-data", "job.yaml", "-o", "json"], tmp_path)
    assert ended.wait() == 1, str(ended)
    found = json.loads("".join(ended.out))
    assert (found["records"], found["tried"], found["bad"]) == (100, 60, 2)
    faults = {(fault["field"], fault["reason"]): fault["first"] for fault in found["faults"]}
    assert faults == {("pixels", "out of range"): [7], (None, "ends the process"): [60]}
    assert "at 60\n" in ended.err


@pytest.mark.processes
def test_ctrl_c_shows_what_was_found_until_then(tmp_path: Path) -> None:
    folder_of_a_task(tmp_path, [])
    running = Command(["check-data", "job.yaml"], tmp_path)
    running.wait_for("at 60")
    running.interrupt()
    assert running.wait() == 130, str(running)
    assert "Stopped by you" in str(running)
    assert any("out of range" in line for line in running.out)
