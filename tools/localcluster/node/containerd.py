"""containerd, with nothing shared with the machine's own.

Its root outlives a cluster, for the sake of the images in it. The containers of the cluster before
are still listed there, though they ended with its PID namespace. They go before the kubelet starts,
with the CRI plugin off so that it never learns of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from localcluster.base.errors import ClusterError
from localcluster.base.files import write_atomically
from localcluster.cluster.component import Component
from localcluster.cluster.nodes import Node
from localcluster.images import pause
from localcluster.node.ctr import SOCKET, Client

_CNI_PLUGINS = Path("/usr/lib/cni")
_CRI_PLUGIN = "io.containerd.grpc.v1.cri"
_START_SECONDS = 120.0


def _config(node: Node, *, with_cri: bool = True) -> str:
    """Return containerd's configuration.

    Parameters
    ----------
    node
        The node.
    with_cri
        False to start it without its CRI plugin, for `sweep`.

    Notes
    -----
    `restrict_oom_score_adj`: without CAP_SYS_RESOURCE (many containers and sandboxes lack it)
    runc can't lower a process's score, and each sandbox fails with "can't get final child's PID
    from pipe: EOF".

    `discard_unpacked_layers`: a layer is kept unpacked only, since torch's alone takes 5 GB.
    """
    disabled = [] if with_cri else [_CRI_PLUGIN]
    return f"""version = 2
root = {json.dumps(str(node.content))}
state = "/run/containerd"
disabled_plugins = {json.dumps(disabled)}

[grpc]
  address = "{SOCKET}"

[plugins."{_CRI_PLUGIN}"]
  sandbox_image = "{pause.REFERENCE}"
  restrict_oom_score_adj = true
  disable_apparmor = true

  [plugins."{_CRI_PLUGIN}".cni]
    bin_dir = "{_CNI_PLUGINS}"
    conf_dir = {json.dumps(str(node.folder / "cni"))}

  [plugins."{_CRI_PLUGIN}".containerd]
    discard_unpacked_layers = true

    [plugins."{_CRI_PLUGIN}".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _argv(node: Node, *, with_cri: bool = True) -> list[str]:
    """Write containerd's configuration and return its command line."""
    config = node.folder / ("containerd.toml" if with_cri else "containerd-sweep.toml")
    write_atomically(config, _config(node, with_cri=with_cri))
    return ["containerd", "--config", str(config), "--log-level", "warn"]


def component(node: Node) -> Component:
    """Return containerd; it serves once its socket is there."""
    return Component(node.process("containerd"), _argv(node), SOCKET.is_socket)


def sweep(node: Node) -> None:
    """Forget the containers of an earlier run of this node; images stay."""
    log = node.cluster.logs / f"{node.process('containerd')}.log"
    if not (node.content / "io.containerd.metadata.v1.bolt").exists():
        return
    with log.open("ab") as output:
        daemon = subprocess.Popen(_argv(node, with_cri=False), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not SOCKET.is_socket():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(
                    f"containerd does not start on {node.content} (see {log})",
                    "`down --purge` gives it a fresh folder",
                )
            time.sleep(0.02)
        ctr = Client()
        if left := ctr("containers", "ls", "--quiet").split():
            ctr("containers", "rm", *left)
    finally:
        daemon.terminate()
        daemon.wait()
        SOCKET.unlink(missing_ok=True)
    for kind in ("containers", "sandboxes"):
        shutil.rmtree(node.content / _CRI_PLUGIN / kind, ignore_errors=True)


def import_pause() -> None:
    """Give containerd the image of pod sandboxes, if it has not got it."""
    ctr = Client()
    if pause.REFERENCE not in ctr.images():
        ctr("images", "import", "-", stdin=pause.archive())
