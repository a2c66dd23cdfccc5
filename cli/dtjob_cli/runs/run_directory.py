"""The directory of a local run: made once, found again, held by one command at a time."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtjob_cli.errors import BadInput
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.file_ledger import is_version

# What never changes after a run has begun, as in a cluster (rules 5, 9 and 14).
FROZEN = ("training", "privacy", "checkpoint", "storage")

_SECRET_BYTES = 32


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside `<runs>/<job>-<first 8 of the UID>/`."""

    path: Path

    @property
    def manifest(self) -> Path:
        """The manifest as it was given."""
        return self.path / "job.yaml"

    @property
    def ledger(self) -> Path:
        """The file ledger: the truth about what was drawn."""
        return self.path / "ledger"

    @property
    def versions(self) -> list[Path]:
        """Of the ledger, in any order."""
        return [file for file in self.ledger.iterdir() if is_version(file.name)]

    @property
    def state(self) -> Path:
        """Stands for the checkpoint volume: journal and checkpoints."""
        return self.path / "state"

    @property
    def logs(self) -> Path:
        """One `worker-<position>.jsonl` each."""
        return self.path / "logs"

    @property
    def workers(self) -> Path:
        """One `worker-<position>.json` each: the configuration of its supervisor."""
        return self.path / "workers"

    @property
    def secret(self) -> Path:
        """By this the run's workers know one another; see `new_secret`."""
        return self.path / "private" / "gang-secret"

    @property
    def privacy_report(self) -> Path:
        """The last privacy report."""
        return self.path / "report.json"

    @property
    def lock(self) -> Path:
        """Held by whoever works on the run; see `locked`."""
        return self.path / "lock"

    @property
    def begun(self) -> bool:
        """Whether the run ever had a ledger or a journal."""
        return _holds(self.ledger, is_version) or _holds(self.state)

    @property
    def ledger_lost(self) -> bool:
        """Whether the run has a journal or checkpoints but no ledger (rule 11)."""
        return not _holds(self.ledger, is_version) and _holds(self.state)


def create(parent: Path, name: str, manifest: Path) -> RunDirectory:
    """Make the directory of a new run.

    Parameters
    ----------
    parent
        Where runs live; made when missing.
    name
        `<job>-<first 8 of the UID>`.
    manifest
        The job's file, copied as it is.

    Raises
    ------
    BadInput
        If the directory can't be made.
    """
    run = RunDirectory(parent / name)
    try:
        run.path.mkdir(parents=True)
        # The ledger too, still without a version: workers wait for the first.
        for folder in (run.ledger, run.state, run.logs, run.workers):
            folder.mkdir()
        shutil.copyfile(manifest, run.manifest)
    except OSError as error:
        raise BadInput(
            "RunDirectory",
            f"the run directory {run.path} can't be made: {error.strerror}.",
            "Make room or name a writable place with --dir.",
        ) from None
    return run


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an error of the system that names no file, as that of a write does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def new_secret(run: RunDirectory) -> None:
    """Write another secret for the workers of this run, which no other user can read."""
    run.secret.parent.mkdir(mode=0o700, exist_ok=True)
    run.secret.parent.chmod(0o700)
    run.secret.unlink(missing_ok=True)
    descriptor = os.open(run.secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with naming(run.secret), open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_SECRET_BYTES))


def discard(run: RunDirectory) -> None:
    """Remove a run that never had a ledger; of any other nothing is touched."""
    if not run.begun:
        shutil.rmtree(run.path, ignore_errors=True)


def existing(path: Path) -> RunDirectory:
    """Return the run in `path`.

    Raises
    ------
    BadInput
        If `path` is no run directory, or nobody knows whether it is.
    """
    run = RunDirectory(path)
    if not is_file(run.manifest):
        raise BadInput(
            "NoSuchRun",
            f"{path} is not the directory of a run: it has no job.yaml.",
            "Runs are directories such as dtjob-runs/digits-1a2b3c4d.",
        )
    return run


def named(job: str, namespace: str | None) -> RunDirectory | None:
    """Return the run that a user names where a job in the cluster could be named as well.

    A path, or what a local run is in; None: a job in the cluster.

    Raises
    ------
    BadInput
        A path is that of no run.
    """
    if namespace is None and (os.sep in job or is_file(RunDirectory(Path(job)).manifest)):
        return existing(Path(job))
    return None


def of_version(file: Path) -> RunDirectory | None:
    """Return the run of whose ledger `file`, which is there, is a version, or None.

    Links do not hide it, be it one to the file or to its folder, or where the run's own folder is
    one to another disk.
    """
    folders = [
        folder
        for name in _links(file.absolute())
        if is_version(name.name)
        for folder in _links(name.parent)
    ]
    real = Path(os.path.realpath(file))
    folders += [real.parent] if is_version(real.name) else []
    found = (RunDirectory(folder.parent) for folder in folders if folder.name == "ledger")
    return next((run for run in found if is_file(run.manifest)), None)


def _links(path: Path) -> Iterator[Path]:
    """Yield `path`, and where it is a link what it leads to, link by link."""
    yield path
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path


def is_file(path: Path) -> bool:
    """Return whether there is a file.

    Raises
    ------
    BadInput
        If the system does not let this user look.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise BadInput(
            "RunDirectory",
            f"{path}: {error.strerror}.",
            f"Let user {os.getuid()} read it and all folders above it.",
        ) from None


def newest(parent: Path, job_name: str) -> RunDirectory:
    """Return the newest run of `job_name` in `parent` that had begun.

    Raises
    ------
    BadInput
        If there is none, or which it is can't be known.
    """
    found, closed = _looked_into(parent, job_name)
    for run, why in closed:
        if not found or _is_ones_own(run.path):
            raise BadInput(
                "RunDirectory",
                f"{run.path} can't be looked into: {why}. It may be the newest run.",
                f"Let user {os.getuid()} read it and all that is in it, or name the run to go on "
                "with after --resume.",
            )
    if not found:
        raise BadInput(
            "NoSuchRun",
            f"no run of job {job_name} in {parent} can be resumed: there is none that had begun.",
            "Leave out --resume to start one, or name its place with --dir.",
        )
    return found[-1]


def begun(parent: Path, job_name: str) -> list[RunDirectory]:
    """Return the runs of `job_name` in `parent` that had begun, the newest last.

    Without those that this user may not look into.
    """
    return _looked_into(parent, job_name)[0]


def _looked_into(
    parent: Path, job_name: str
) -> tuple[list[RunDirectory], list[tuple[RunDirectory, str]]]:
    """Return the runs that had begun, the newest last, and those of which that is not known."""
    pattern = re.compile(re.escape(job_name) + "-[0-9a-f]{8}")
    found, closed = [], []
    for path in parent.iterdir() if parent.is_dir() else ():
        run = RunDirectory(path)
        if not pattern.fullmatch(path.name):
            continue
        try:
            if path.is_file():
                continue
            if not durable.is_absent(run.manifest) and run.begun:
                found.append((run.manifest.stat().st_mtime_ns, path))
        except OSError as error:
            closed.append((run, durable.why(error)))
    return [RunDirectory(path) for _, path in sorted(found)], closed


def _is_ones_own(path: Path) -> bool:
    """Return whether what may not be looked into is this user's, as far as can be told."""
    try:
        return path.stat().st_uid == os.getuid()
    except OSError:
        return True


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return where two manifests disagree in what a run has frozen, or None.

    Both with defaults applied; the answer reads `spec.training.steps: 336 in the run, now 400`.
    """
    for section in FROZEN:
        before, after = old["spec"].get(section), new["spec"].get(section)
        found = _difference(before, after, f"spec.{section}")
        if found:
            return found
    return None


class RunInUse(Exception):
    """Another process holds the run: a `dtjob run`, or workers that it left behind."""


@contextmanager
def locked(run: RunDirectory) -> Iterator[int]:
    """Hold the run for this process and all that inherit the yielded file descriptor.

    The kernel lets go when the last of them ends, however it ends.

    Raises
    ------
    RunInUse
        Somebody else holds it.
    """
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunInUse from None
        yield descriptor
    finally:
        os.close(descriptor)


def _difference(before: object, after: object, path: str) -> str | None:
    if before == after:
        return None
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            found = _difference(before.get(key), after.get(key), f"{path}.{key}")
            if found:
                return found
    return f"{path}: {_value(before)} in the run, now {_value(after)}"


def _value(value: object) -> str:
    return "absent" if value is None else str(value)


def _holds(folder: Path, counts: Callable[[str], bool] = bool) -> bool:
    """Whether `folder` has an entry whose name counts; one that can't be looked at may have.

    So may one that is a link to what is not mounted. Reading it then shows why it can't be read.
    """
    try:
        return any(counts(entry.name) for entry in folder.iterdir())
    except FileNotFoundError:
        return folder.is_symlink()
    except OSError:
        return True
