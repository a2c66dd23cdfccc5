from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from dtjob_cli import display


def _report(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "totalSteps": 336, "epsilonSpent": "4.31", "restarts": 0, **more}


def test_without_a_terminal_progress_is_one_line_for_each_tenth() -> None:
    stream = io.StringIO()
    screen = display.for_stream(stream)
    with screen:
        for step in range(1, 337):
            screen.training(_report(step))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert "step 336 of 336 · ε 4.31" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_a_stage_is_told_once_however_often_it_is_seen() -> None:
    stream = io.StringIO()
    with display.for_stream(stream) as screen:
        for _ in range(5):
            screen.waiting("importing torch")

    assert stream.getvalue().count("importing torch") == 1


def test_on_a_terminal_the_live_line_has_progress_epsilon_and_accuracy() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, highlight=False)
    with display.LiveDisplay(console) as screen:
        screen.waiting("[importing] torch")  # square brackets are no markup here
        screen.training(_report(84, evaluation={"step": 80, "accuracy": 0.912}))

    shown = stream.getvalue()
    for word in ("step 84/336", "ε 4.31", "accuracy 0.912"):
        assert word in shown


def test_figures_that_are_not_known_are_absent_not_zero() -> None:
    known = display.figures({"step": 1, "totalSteps": 2, "evaluation": None, "restarts": 0})

    assert known == []
