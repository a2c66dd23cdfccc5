"""What has to be done inside of containerd before the kubelet starts.

containerd's root outlives a cluster, for the sake of the images in it. The containers of the
cluster before, ended with its PID namespace, are still listed there and go first, with the CRI
plugin off so that it never learns of them.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from localcluster import node, pause
from localcluster.ctr import Client
from localcluster.errors import ClusterError
from localcluster.instance import Instance

_START_SECONDS = 120.0


def sweep(instance: Instance, log: Path) -> None:
    """Forget the containers of an earlier run of this cluster; images stay."""
    if not (instance.content / "io.containerd.metadata.v1.bolt").exists():
        return
    with log.open("ab") as output:
        daemon = subprocess.Popen(
            node.containerd_argv(instance, with_cri=False), stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not node.CONTAINERD_SOCKET.is_socket():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(
                    f"containerd does not start on {instance.content} (see {log})",
                    "`down --purge` gives it a fresh folder",
                )
            time.sleep(0.02)
        ctr = Client()
        if left := ctr("containers", "ls", "--quiet").split():
            ctr("containers", "rm", *left)
    finally:
        daemon.terminate()
        daemon.wait()
        node.CONTAINERD_SOCKET.unlink(missing_ok=True)
    for kind in ("containers", "sandboxes"):
        shutil.rmtree(instance.content / node.CRI_PLUGIN / kind, ignore_errors=True)


def import_pause() -> None:
    """Give containerd the image of pod sandboxes, if it has not got it."""
    ctr = Client()
    if pause.REFERENCE not in ctr.images():
        ctr("images", "import", "-", stdin=pause.archive())
