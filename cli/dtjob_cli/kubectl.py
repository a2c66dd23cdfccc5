"""The cluster as the user's own kubectl reaches it: its kubeconfig, its login, its rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_trainer.usercode import library_first

TIMEOUT_SECONDS = 60


def get_ledger(namespace: str, name: str) -> dict[str, Any]:
    """Return a PrivacyLedger as the API server stores it.

    Raises
    ------
    CommandError
        In the words of kubectl, if there is none or it may not be read.
    """
    found = _run("get", "privacyledgers.dtjob.dev", name, "-n", namespace, "--output=json")
    try:
        ledger: dict[str, Any] = json.loads(found)
    except (ValueError, RecursionError):
        raise CommandError(
            ExitCode.REFUSED,
            "Kubectl",
            f"kubectl gave no JSON for {namespace}/{name}: {found[:200].strip()}",
        ) from None
    return ledger


def replace_ledger_status(ledger: dict[str, Any], *, dry_run: bool) -> None:
    """Write the status of a ledger, unless somebody wrote since it was read.

    Raises
    ------
    CommandError
        In the words of kubectl: a conflict, no right to do so, or a rule of the ledger.
    """
    arguments = ["--dry-run=server"] if dry_run else []
    _run("replace", "--subresource=status", "--filename=-", *arguments, stdin=json.dumps(ledger))


def _run(*arguments: str, stdin: str | None = None) -> str:
    program = shutil.which("kubectl")
    if program is None:
        raise BadInput(
            "NoKubectl",
            "kubectl is not on the PATH.",
            "Install it, or give the directory of a local run instead of --namespace.",
        )
    try:
        done = subprocess.run(
            [program, *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=library_first.given(os.environ),  # a login plugin may be a Python of its own
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(
            ExitCode.REFUSED, "NoAnswer", f"kubectl did not answer within {TIMEOUT_SECONDS} s."
        ) from None
    except OSError as error:
        raise CommandError(
            ExitCode.REFUSED, "Kubectl", f"{program} can't be started: {error.strerror}."
        ) from None
    if done.returncode:
        raise CommandError(ExitCode.REFUSED, "Kubectl", done.stderr.strip())
    return done.stdout
