"""Finding and running kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from localcluster.base.errors import CannotRunHere
from localcluster.base.progress import Progress
from localcluster.install import binaries

_ONLY_KUBECTL = binaries.only(binaries.KUBERNETES, "kubectl")


def obstacle() -> str | None:
    """Return why there can be no kubectl here, or None if there is one or it can be built."""
    if shutil.which("kubectl") is not None:
        return None
    try:
        binaries.require_buildable(_ONLY_KUBECTL)
    except CannotRunHere:
        return "kubectl is not installed (https://kubernetes.io/docs/tasks/tools/)"
    return None


def find(progress: Progress) -> Path:
    """Return the kubectl on PATH, or else the one in the tools cache, built if need be.

    Raises
    ------
    CannotRunHere
        If there is none and no Go to build it with.
    """
    on_path = shutil.which("kubectl")
    if on_path is not None:
        return Path(on_path)
    absent = obstacle()
    if absent is not None:
        raise CannotRunHere(absent, "Install it, or Go to have it built")
    binaries.ensure(progress, (_ONLY_KUBECTL,))
    return binaries.path(_ONLY_KUBECTL, "kubectl")


def run(
    kubectl: Path, kubeconfig: Path, *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run kubectl against the cluster of `kubeconfig` and return what came of it."""
    argv = [str(kubectl), f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(
        argv, check=False, input=stdin, capture_output=True, encoding="utf-8", errors="replace"
    )
