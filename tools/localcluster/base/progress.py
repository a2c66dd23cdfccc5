"""Telling a person what is being done, how long it has taken and what it took before."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.text import Text

from localcluster.base.files import write_atomically
from localcluster.base.paths import cache_folder

_REPEAT_SECONDS = 30.0  # where there is no terminal, a line this often says that it goes on


class Progress:
    """Prints one live line for each stage on a terminal, plain lines anywhere else.

    Parameters
    ----------
    console
        Where to print; standard error by default, so that standard output stays for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False)

    @contextmanager
    def stage(self, title: str, key: str | None = None) -> Iterator[Stage]:
        """Show `title` with its running time while the block runs.

        Parameters
        ----------
        title
            What is being done, e.g. `"building etcd"`.
        key
            Name under which the time is remembered on this machine, to be shown next time.
        """
        before = _remembered().get(key, None) if key else None
        hint = f" (took {_duration(before)} before)" if before is not None else ""
        running = Stage(title, hint)
        ticker = threading.Thread(target=self._tick, args=(running,), daemon=True)
        ticker.start()
        try:
            yield running
        except BaseException:
            running.finished.set()
            ticker.join()
            self.say(f"  failed after {_duration(running.elapsed)}: {title}")
            raise
        running.finished.set()
        ticker.join()
        took = running.elapsed
        self.say(f"  {title}: {_duration(took)}")
        if key:
            _remember(key, took)

    def _tick(self, stage: Stage) -> None:
        if self.console.is_terminal:
            with self.console.status("") as status:
                while not stage.finished.wait(0.2):
                    status.update(Text(stage.line()))
            return
        wait = 2.0
        while not stage.finished.wait(wait):
            self.say(f"  {stage.line()}")
            wait = _REPEAT_SECONDS


class Stage:
    """Something that takes a while; `note` says which part of it is being done."""

    def __init__(self, title: str, hint: str) -> None:
        self.note = ""
        self.finished = threading.Event()
        self._title = title
        self._hint = hint
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def line(self) -> str:
        """Return what to show of it now."""
        note = f": {self.note}" if self.note else ""
        return f"{self._title}{note} … {_duration(self.elapsed)}{self._hint}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def _remembered() -> dict[str, float]:
    with suppress(OSError, ValueError):
        read = json.loads((cache_folder() / "durations.json").read_text())
        return {str(key): float(value) for key, value in read.items()}
    return {}


def _remember(key: str, seconds: float) -> None:
    known = _remembered() | {key: round(seconds, 1)}
    with suppress(OSError):
        write_atomically(cache_folder() / "durations.json", json.dumps(known, indent=1))
