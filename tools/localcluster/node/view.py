"""The cluster's own view of the machine's files.

kubelet, containerd, runc and the CNI plugins keep things under fixed names in /run and /var. In the
cluster's mount namespace both are laid over with memory, so that they neither see nor leave
anything on the machine.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import ClusterError


def _mount(*arguments: str, held: tuple[int, ...] = ()) -> None:
    command = ["mount", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, pass_fds=held)
    if done.returncode != 0:
        raise ClusterError(f"`mount {' '.join(arguments)}` failed: {done.stderr.strip()}")


def uncover() -> None:
    """Take away what `make_private` has covered, in a copy of its mount namespace.

    A second cover over the first would do, but of an overlay there may be two layers only, and the
    machine's own /var may be one.
    """
    for covered in ("/run", "/var"):
        done = subprocess.run(
            ["umount", "--lazy", covered], check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ClusterError(f"`umount --lazy {covered}` failed: {done.stderr.strip()}")


def make_private(kept: Path, spare: Path) -> None:
    """Cover /run and /var in this process's mount namespace.

    Parameters
    ----------
    kept
        A folder that stays what it is, though it may lie below one of the two.
    spare
        An empty folder, for the covers' own use.
    """
    _mount("-t", "tmpfs", "-o", "mode=0755", project.NAME, str(spare))
    holder, upper, work = spare / "kept", spare / "upper", spare / "work"
    for folder in (holder, upper, work):
        folder.mkdir()
    _mount("--bind", str(kept), str(holder))
    held = os.open(holder, os.O_PATH | os.O_DIRECTORY)  # its path is covered too, if below /var
    layers = f"lowerdir=/var,upperdir={upper},workdir={work}"
    _mount("-t", "overlay", "-o", layers, project.NAME, "/var")
    _mount("-t", "tmpfs", "-o", "mode=0755", project.NAME, "/run")
    kept.mkdir(parents=True, exist_ok=True)
    try:
        if not os.path.samestat(os.stat(kept), os.fstat(held)):
            _mount("--no-canonicalize", "--bind", f"/proc/self/fd/{held}", str(kept), held=(held,))
    finally:
        os.close(held)
