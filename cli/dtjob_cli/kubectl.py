"""The cluster as the user's own kubectl reaches it: its kubeconfig, its login, its rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_trainer.usercode import library_first

TIMEOUT_SECONDS = 60
_CHUNK = 64 << 10


def get_ledger(namespace: str, name: str) -> dict[str, Any]:
    """Return a PrivacyLedger as the API server stores it.

    Raises
    ------
    CommandError
        In the words of kubectl, if there is none or it may not be read.
    """
    return get("privacyledgers.dtjob.dev", name, namespace)


def get(kind: str, name: str, namespace: str | None) -> dict[str, Any]:
    """Return an object as the API server stores it.

    Parameters
    ----------
    namespace
        None: that of the user's present context.

    Raises
    ------
    CommandError
        In the words of kubectl, if there is none or it may not be read.
    """
    return _object(_run("get", kind, name, *_in(namespace), "--output=json"), name, namespace)


def find(kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    """Return an object as the API server stores it; None where there is none.

    Raises
    ------
    CommandError
        In the words of kubectl, if it may not be read.
    """
    found = _run("get", kind, name, *_in(namespace), "--output=json", "--ignore-not-found")
    return _object(found, name, namespace) if found.strip() else None


def events_of(name: str, namespace: str) -> list[dict[str, Any]]:
    """Return what is reported of a pod, the newest last.

    Raises
    ------
    CommandError
        In the words of kubectl, if it may not be read.
    """
    chosen = f"--field-selector=involvedObject.name={name}"
    found = _run(
        "get", "events", *_in(namespace), chosen, "--output=json", "--sort-by=.lastTimestamp"
    )
    events: list[dict[str, Any]] = _object(found, name, namespace)["items"]
    return events


def create(manifest: dict[str, Any]) -> None:
    """Create an object.

    Raises
    ------
    CommandError
        In the words of kubectl: a quota, a policy, no right to do so.
    """
    _run("create", "--filename=-", stdin=json.dumps(manifest), is_alone=True)


def delete_pod(name: str, namespace: str) -> None:
    """Delete a pod, if it is there, without waiting for its end.

    Raises
    ------
    CommandError
        In the words of kubectl.
    """
    options = ("--ignore-not-found", "--wait=false", "--now")
    _run("delete", "pod", name, *_in(namespace), *options, is_alone=True)


def stream(*arguments: str, namespace: str, take: Callable[[bytes], bool]) -> None:
    """Hand over what a command of kubectl prints as it comes, for as long as `take` wants more.

    Raises
    ------
    CommandError
        In the words of kubectl, if it fails.
    """
    with ExitStack() as held:
        with _reported():
            words = held.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                [_program(), *_in(namespace), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                env=_environment(),
            )
        held.enter_context(process)
        held.callback(process.kill)
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), _CHUNK):
            if not take(chunk):
                return
        if process.wait():
            words.seek(0)
            message = words.read().decode(errors="replace").strip()
            raise CommandError(ExitCode.REFUSED, "Kubectl", message)


def replace_ledger_status(ledger: dict[str, Any], *, dry_run: bool) -> None:
    """Write the status of a ledger, unless somebody wrote since it was read.

    Raises
    ------
    CommandError
        In the words of kubectl: a conflict, no right to do so, or a rule of the ledger.
    """
    arguments = ["--dry-run=server"] if dry_run else []
    _run("replace", "--subresource=status", "--filename=-", *arguments, stdin=json.dumps(ledger))


def _object(found: str, name: str, namespace: str | None) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(found)
    except (ValueError, RecursionError):
        full = f"{namespace}/{name}" if namespace else name
        raise CommandError(
            ExitCode.REFUSED,
            "Kubectl",
            f"kubectl gave no JSON for {full}: {found[:200].strip()}",
        ) from None
    return stored


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def _program() -> str:
    program = shutil.which("kubectl")
    if program is None:
        raise BadInput(
            "NoKubectl",
            "kubectl is not on the PATH.",
            "Install it, or give the directory of a local run instead.",
        )
    return program


def _environment() -> dict[str, str]:
    return library_first.given(os.environ)  # a login plugin may be a Python of its own


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        raise CommandError(
            ExitCode.REFUSED, "NoAnswer", f"kubectl did not answer within {TIMEOUT_SECONDS} s."
        ) from None
    except OSError as error:
        raise CommandError(
            ExitCode.REFUSED, "Kubectl", f"{_program()} can't be started: {error.strerror}."
        ) from None


def _run(*arguments: str, stdin: str | None = None, is_alone: bool = False) -> str:
    """Run kubectl; what `is_alone` is brought to its end though the terminal has a Ctrl-C."""
    with _reported():
        done = subprocess.run(
            [_program(), *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            timeout=TIMEOUT_SECONDS,
            check=False,
            start_new_session=is_alone,
        )
    if done.returncode:
        raise CommandError(ExitCode.REFUSED, "Kubectl", done.stderr.strip())
    return done.stdout
