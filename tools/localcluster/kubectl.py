"""Finding and running kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from localcluster import binaries
from localcluster.progress import Progress


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
    only_kubectl = binaries.only(binaries.KUBERNETES, "kubectl")
    binaries.ensure(progress, (only_kubectl,))
    return binaries.path(only_kubectl, "kubectl")


def run(
    kubectl: Path, kubeconfig: Path, *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run kubectl against the cluster of `kubeconfig` and return what came of it."""
    argv = [str(kubectl), f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(argv, check=False, input=stdin, capture_output=True, text=True)
