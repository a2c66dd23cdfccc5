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
from localcluster.errors import ClusterError
from localcluster.instance import Instance

_START_SECONDS = 120.0


def _ctr(*arguments: str) -> list[str]:
    argv = ["ctr", "--address", str(node.CONTAINERD_SOCKET), "--namespace", "k8s.io", *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout.split()


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
        if left := _ctr("containers", "ls", "--quiet"):
            _ctr("containers", "rm", *left)
    finally:
        daemon.terminate()
        daemon.wait()
        node.CONTAINERD_SOCKET.unlink(missing_ok=True)
    for kind in ("containers", "sandboxes"):
        shutil.rmtree(instance.content / node.CRI_PLUGIN / kind, ignore_errors=True)


def import_pause(instance: Instance) -> None:
    """Give containerd the image of pod sandboxes, if it has not got it."""
    if pause.REFERENCE in _ctr("images", "ls", "--quiet"):
        return
    archive = instance.folder / "pause.tar"
    pause.write_archive(archive)
    _ctr("images", "import", str(archive))
    archive.unlink()
