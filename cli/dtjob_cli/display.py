"""What a run shows while it goes: a live line on a terminal, plain lines everywhere else.

Everything here goes to the standard error; the result of a command goes to the standard output.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table

from dtjob_api import shown
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_cli.standard_streams import encodes

KEPT_SECONDS = 2.0  # a stage that took as long stays on the screen
REPEATED_SECONDS = 20.0  # where lines stay, one that takes longer is shown again


class Display(Protocol):
    """Where a run reports what it does; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def fact(self, text: str) -> None:
        """Show what is done now."""

    def note(self, text: str) -> None:
        """Show what the user should know or do: a warning, a restart, how to resume."""

    def waiting(self, text: str) -> None:
        """Show what is being waited for, until the next call."""

    def training(self, report: WorkerReport) -> None:
        """Show how far the training is."""

    def trying(self, done: int, total: int, bad: int) -> None:
        """Show how many records of a data set are tried."""


def for_stream(stream: TextIO | None = None) -> Display:
    """Return the display for `stream` (default: the standard error)."""
    stream = stream or sys.stderr
    console = Console(file=stream, highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if live else PlainDisplay(stream)


def figures(report: WorkerReport) -> list[str]:
    """Return the figures of a report as people read them, those that are known."""
    parts = []
    if report.epsilon_spent is not None:
        # For how many: it is computed beside the training and may come a little after the draws.
        parts.append(f"ε {report.epsilon_spent} for {report.charged} charged draws")
    parts += [f"{name} {value:.4g}" for name, value in report.evaluation.items() if name != "step"]
    if report.samples_per_second:
        parts.append(f"{report.samples_per_second:,.0f} samples/s")
    if report.estimated_completion:
        left = report.estimated_completion - datetime.now(UTC)
        parts.append(f"{duration(max(0.0, left.total_seconds()))} left")
    if report.restarts:
        parts.append(f"restarts {report.restarts}")
    return parts


def restart(report: WorkerReport) -> str:
    """Return why the workers start again, and what that leaves of the reserve."""
    done = report.checkpoint.step if report.checkpoint else 0
    left = report.reserved_draws - report.charged - (report.total_steps - done)
    reserve = (
        f"{left} draws in reserve are left"
        if left >= 0
        else f"the reserve is used up: {-left} of the steps that are left can't be paid for"
    )
    return f"restart {report.restarts} from step {done}: {report.message}; {reserve}"


def duration(seconds: float) -> str:
    """Return `seconds` as `7 s` or `2:05`."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d}"


def _plain(text: str) -> str:
    """Return `text` as rich prints it: no markup is in it, and nothing that a terminal obeys."""
    return escape(shown.line(text))


class PlainDisplay:
    """Line by line, each with the seconds since the start; progress at every tenth."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = time.monotonic()
        self._last = ""
        self._since = self._repeated = self._start
        self._tenth = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def fact(self, text: str) -> None:
        """Print a line that stays."""
        self._line(text)

    def note(self, text: str) -> None:
        """Print a line that stays and asks for attention."""
        self._line(f"! {text}")

    def waiting(self, text: str) -> None:
        """Say what the run waits for."""
        now = time.monotonic()
        if text != self._last:
            self._last, self._since, self._repeated = text, now, now
            self._line(f"{text} …")
        elif now - self._repeated >= REPEATED_SECONDS:
            self._repeated = now
            self._line(f"{text} … {duration(now - self._since)}")

    def training(self, report: WorkerReport) -> None:
        """Show the progress of the steps."""
        step, total = report.step, max(report.total_steps, 1)
        tenth = step * 10 // total
        if tenth != self._tenth:
            self._tenth = tenth
            self._line(" · ".join([f"training: step {step} of {total}", *figures(report)]))

    def trying(self, done: int, total: int, bad: int) -> None:
        """Show the progress through a data set."""
        tenth = done * 10 // max(total, 1)
        if tenth != self._tenth:
            self._tenth = tenth
            self._line(f"record {done:,} of {total:,} · {bad:,} bad")

    def _line(self, text: str) -> None:
        elapsed = time.monotonic() - self._start
        self._stream.write(f"[{elapsed:6.1f} s] {shown.line(text)}\n")
        self._stream.flush()


class LiveDisplay:
    """Facts scroll by; below them one live line with a spinner or a progress bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("dots" if encodes(console.encoding, "⠋") else "line")
        self._now = "starting the workers"
        self._since = time.monotonic()
        self._report: WorkerReport | None = None
        self._tried: tuple[int, int, int] | None = None
        self._live = Live(
            console=console, transient=True, refresh_per_second=8, get_renderable=self._renderable
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def fact(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(f"[green]✓[/] {_plain(text)}")

    def note(self, text: str) -> None:
        """Print a line that stays and asks for attention."""
        self._console.print(f"[yellow]![/] {_plain(text)}")

    def waiting(self, text: str) -> None:
        """Say what the run waits for."""
        if text != self._now or self._report is not None:
            self._leave()
            self._now, self._since, self._report = text, time.monotonic(), None

    def training(self, report: WorkerReport) -> None:
        """Show the progress of the steps."""
        if self._report is None:
            self._leave()
            self._since = time.monotonic()
        self._report = report

    def trying(self, done: int, total: int, bad: int) -> None:
        """Show the progress through a data set."""
        self._tried = done, total, bad

    def _leave(self) -> None:
        """Keep what took a while on the screen."""
        elapsed = time.monotonic() - self._since
        if self._report is not None:
            text = f"trained to step {self._report.step} of {self._report.total_steps}"
            self.fact(f"{text} in {duration(elapsed)}")
        elif elapsed >= KEPT_SECONDS:
            self.fact(f"{self._now}: {duration(elapsed)}")

    def _renderable(self) -> RenderableType:
        elapsed = duration(time.monotonic() - self._since)
        if self._report is not None:
            step, total = self._report.step, self._report.total_steps
            label, text = f"step {step}/{total}", " · ".join(figures(self._report))
        elif self._tried is not None:
            step, total, bad = self._tried
            label, text = f"record {step:,}/{total:,}", f"{bad:,} bad"
        else:
            row = Table.grid(padding=(0, 1))
            row.add_row(self._spinner, _plain(self._now), f"[dim]{elapsed}[/]")
            return row
        row = Table.grid("", "", "", Column(ratio=1, no_wrap=True), "", padding=(0, 1), expand=True)
        row.add_row(
            self._spinner,
            label,
            ProgressBar(total=total, completed=step, width=24),
            _plain(text),
            f"[dim]{elapsed}[/]",
        )
        return row
