"""`dtjob logs`: what a rank printed, of pods that run and of those that are gone."""

from __future__ import annotations

import codecs
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtjob_api import shown
from dtjob_cli import cluster_jobs, kept_volumes, kubectl, standard_streams
from dtjob_cli.display import for_stream
from dtjob_cli.errors import BadInput
from dtjob_cli.kept_volumes import Folder, KeptVolume
from dtjob_cli.runs import run_directory
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import log_path

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `dtjob_cli.main.logs`."""

    job: str
    namespace: str | None
    rank: int
    attempt: int | None
    previous: bool
    follow: bool

    @property
    def of_an_attempt(self) -> bool:
        """Whether it asks for what is kept, also while pods run."""
        return self.previous or self.attempt is not None


def show(request: Request) -> None:
    """Print a log.

    Raises
    ------
    CommandError
        There is no such job, run or log, it can't be read, or not be printed.
    """
    if request.previous and request.attempt is not None:
        raise BadInput(
            "AttemptTwice",
            f"--previous and --attempt {request.attempt} both say which attempt.",
            "Leave one of them out.",
        )
    printed = _Printed()
    if (run := run_directory.named(request.job, request.namespace)) is not None:
        _of_run(request, run, printed)
    else:
        _of_job(request, printed)
    printed.end()
    standard_streams.check_printed()


def _of_run(request: Request, run: RunDirectory, printed: _Printed) -> None:
    folder = Folder(run.state)
    key = _chosen(request, folder.logs())
    path = str(log_path(Path(), key))
    if not request.follow:
        folder.send(path, printed.take)
        return
    at = 0
    while True:
        goes_on = _goes_on(run, key)
        sizes = folder.logs()
        if sizes.get(key, 0) < at:
            at = 0  # its beginning was cut: what is left comes once more
        seen = _Skipping(at, printed)
        if sizes.get(key):
            folder.send(path, seen.take)
        at = seen.read
        if not goes_on or not printed.wants_more:
            return
        time.sleep(POLL_SECONDS)


def _goes_on(run: RunDirectory, key: LogKey) -> bool:
    """Return whether an attempt may still print: somebody holds the run, and none came after it."""
    newest = max(each.attempt for each in {key, *Folder(run.state).logs()})
    try:
        with run_directory.locked(run):
            return False
    except run_directory.RunInUse:
        return newest == key.attempt


def _of_job(request: Request, printed: _Printed) -> None:
    job = cluster_jobs.get(request.job, request.namespace)
    pod = job.pod_of(request.rank)
    if not request.of_an_attempt:
        found = kubectl.find("pod", pod, job.namespace)
        if (container := cluster_jobs.running_container(found)) is not None:
            follow = ["--follow"] if request.follow else []
            arguments = ["logs", pod, f"--container={container['name']}", *follow]
            kubectl.stream(*arguments, namespace=job.namespace, take=printed.take)
            return
    with for_stream() as screen, kept_volumes.of_job(job, screen) as volume:
        screen.waiting(f"reading claim {job.claim}")
        _send(request, volume, printed)


def _send(request: Request, volume: KeptVolume, printed: _Printed) -> None:
    key = _chosen(request, volume.logs())
    volume.send(str(log_path(Path(), key)), printed.take)


def _chosen(request: Request, kept: Mapping[LogKey, int]) -> LogKey:
    """Return the log that is asked for.

    Raises
    ------
    BadInput
        None is kept of that rank and attempt; the message says of which.
    """
    attempts = sorted({key.attempt for key in kept})
    back = 2 if request.previous else 1
    attempt = request.attempt
    if attempt is None:
        attempt = attempts[-back] if len(attempts) >= back else 0
    key = LogKey(attempt, request.rank)
    if key in kept:
        return key
    again = f"dtjob logs {shlex.quote(request.job)}"
    if not attempts:
        raise BadInput(
            "NoLog",
            f"no log of {request.job} is kept: no rank was started yet.",
            "What a worker says before is in its pod's log, or in logs/ of a local run.",
        )
    if attempt not in attempts:
        which = f"attempt {attempt}" if attempt else "an earlier attempt"
        raise BadInput(
            "NoLog",
            f"no log of {which} of {request.job} is kept; there are those of attempts "
            f"{', '.join(map(str, attempts))}. The oldest make room for others.",
            f"Ask for one of these, such as: {again} --attempt {attempts[-1]}",
        )
    ranks = [key.rank for key in sorted(kept) if key.attempt == attempt]
    raise BadInput(
        "NoLog",
        f"no log of rank {request.rank} in attempt {attempt} of {request.job} is kept; there are "
        f"those of ranks {', '.join(map(str, ranks))}.",
        f"Ask for one of these, such as: {again} --attempt {attempt} --rank {ranks[0]}",
    )


class _Printed:
    """What goes to the standard output, line by line.

    A terminal gets printable characters alone: it would obey the others, which a task has printed.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._is_terminal = sys.stdout.isatty()
        self._held = ""

    @property
    def wants_more(self) -> bool:
        """Whether somebody still reads it."""
        return getattr(sys.stdout, "failure", None) is None

    def take(self, chunk: bytes) -> bool:
        """Print more; whether there is a reader left."""
        text = self._held + self._decoder.decode(chunk)
        self._held = ""
        if self._is_terminal:
            text, self._held = _whole(text)
            text = "".join(f"{shown.line(line)}\n" for line in text.split("\n")[:-1])
        sys.stdout.write(text)
        sys.stdout.flush()
        return self.wants_more

    def end(self) -> None:
        """Print the rest of a last line."""
        rest = self._held + self._decoder.decode(b"", final=True)
        sys.stdout.write(f"{shown.line(rest)}\n" if rest and self._is_terminal else rest)


def _whole(text: str) -> tuple[str, str]:
    end = text.rfind("\n") + 1
    return text[:end], text[end:]


class _Skipping:
    """Prints a file from a byte on."""

    def __init__(self, first: int, printed: _Printed) -> None:
        self._first, self._printed = first, printed
        self.read = 0

    def take(self, chunk: bytes) -> bool:
        skipped = max(0, self._first - self.read)
        self.read += len(chunk)
        return self._printed.take(chunk[skipped:]) if len(chunk) > skipped else True
