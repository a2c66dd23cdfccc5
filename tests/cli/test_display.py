from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from dtjob_api.wire.worker_report import WorkerReport
from dtjob_cli import display
from dtjob_trainer.process.streams import unfailing

STEP_100 = {"step": 100, "time": "2026-03-01T12:00:05+00:00"}


def _read(**told: Any) -> WorkerReport:
    report = WorkerReport.read({"jobUID": "5ac7f6f2", "attempt": 1, **told})
    assert report is not None
    return report


def _report(step: int, **more: Any) -> WorkerReport:
    known = {"step": step, "totalSteps": 336, "epsilonSpent": "4.31", "charged": 90}
    return _read(**known | more)


def test_without_a_terminal_progress_is_one_line_for_each_tenth() -> None:
    stream = io.StringIO()
    screen = display.for_stream(stream)
    with screen:
        for step in range(1, 337):
            screen.training(_report(step))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert "step 336 of 336 · ε 4.31 for 90 charged draws" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_records_that_are_tried_are_counted_on_both() -> None:
    plain, terminal = io.StringIO(), io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=120, highlight=False)
    with display.for_stream(plain) as lines, display.LiveDisplay(console) as live:
        for done in range(3001):
            lines.trying(done, 3000, done // 1000)
        live.trying(1500, 3000, 1)

    assert len(plain.getvalue().splitlines()) == 11
    assert "record 3,000 of 3,000 · 3 bad" in plain.getvalue()
    assert "record 1,500/3,000" in terminal.getvalue()
    assert "1 bad" in terminal.getvalue()


def test_a_stage_is_told_once_however_often_it_is_seen() -> None:
    stream = io.StringIO()
    with display.for_stream(stream) as screen:
        for _ in range(5):
            screen.waiting("importing torch")

    assert stream.getvalue().count("importing torch") == 1


def test_a_stage_that_takes_long_is_shown_again_with_its_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    with display.for_stream(stream) as screen:
        for second in range(70):
            now = float(second)
            screen.waiting("whether rows meet" if second < 50 else "a whole step")

    assert stream.getvalue().splitlines() == [
        "[   0.0 s] whether rows meet …",
        "[  20.0 s] whether rows meet … 20 s",
        "[  40.0 s] whether rows meet … 40 s",
        "[  50.0 s] a whole step …",
    ]


def test_on_a_terminal_the_live_line_has_progress_epsilon_and_accuracy() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, highlight=False)
    with display.LiveDisplay(console) as screen:
        screen.waiting("[importing] torch")  # square brackets are no markup here
        screen.training(_report(84, evaluation={"step": 80, "accuracy": 0.912}))

    shown = stream.getvalue()
    for word in ("step 84/336", "ε 4.31 for 90 charged draws", "accuracy 0.912"):
        assert word in shown


def test_the_live_line_is_one_line_on_a_narrow_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, highlight=False)
    with display.LiveDisplay(console) as screen:
        evaluation = {"accuracy": 0.912, "balanced_accuracy": 0.9, "loss": 0.4}
        screen.training(_report(84, evaluation=evaluation, samplesPerSecond=123456))

    assert stream.getvalue().count("\n") == 1
    for word in ("step 84/336", "ε 4.31 for 90 charged draws"):
        assert word in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_no_text_of_a_worker_moves_the_cursor(terminal: bool) -> None:
    stream = io.StringIO()
    escape = "\x1b[7F"
    screen: display.Display = display.PlainDisplay(stream)
    if terminal:
        console = Console(file=stream, force_terminal=True, width=200, highlight=False)
        screen = display.LiveDisplay(console)
    with screen:
        screen.fact(escape)
        screen.note(escape)
        screen.waiting(f"importing {escape}")
        screen.training(_report(84, evaluation={"accuracy": 0.9, f"{escape}\nε": 0.01}))

    assert escape not in stream.getvalue()
    assert "0.01" not in stream.getvalue()
    assert r"\x1b[7F" in stream.getvalue()


def test_figures_that_are_not_known_are_absent_not_zero() -> None:
    known = display.figures(_read(step=1, totalSteps=2, evaluation=None, restarts=0))

    assert known == []


@pytest.mark.parametrize(
    ("checkpoint", "charged", "words"),
    [
        (None, 10, "restart 2 from step 0: no step for 600 s; 20 draws in reserve are left"),
        (STEP_100, 110, "from step 100: no step for 600 s; 20 draws in reserve are left"),
        (STEP_100, 140, "the reserve is used up: 10 of the steps that are left can't be paid"),
    ],
)
def test_a_restart_says_why_and_what_is_left_of_the_reserve(
    checkpoint: dict[str, Any] | None, charged: int, words: str
) -> None:
    said = {"restarts": 2, "message": "no step for 600 s", "checkpoint": checkpoint}

    assert words in display.restart(_report(104, **said, charged=charged, reservedDraws=366))


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display.for_stream(Terminal(io.BytesIO())), display.PlainDisplay)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(display.for_stream(Terminal(io.BytesIO())), display.LiveDisplay)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_live_line_turns_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    held = io.BytesIO()
    stream = unfailing(Terminal(held, encoding=encoding), errors="dtjob.spelled")
    with display.for_stream(stream) as screen:
        screen.fact("σ = 2.2")
        screen.waiting("writing …")
        screen.training(_report(84, evaluation={"accuracy": 0.912}))
    stream.flush()

    shown = held.getvalue().decode(encoding)
    assert ("ε 4.31" if encoding == "utf-8" else "epsilon 4.31") in shown
    assert "\\u" not in shown
