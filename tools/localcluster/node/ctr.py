"""containerd's own client, whose socket only a cluster's own view of /run has."""

from __future__ import annotations

import subprocess
from pathlib import Path

from localcluster.base.errors import ClusterError

# /run is the cluster's own (see localcluster.node.view), so this is private though the name is not.
SOCKET = Path("/run/containerd/containerd.sock")


class Client:
    """Calls `ctr` where containerd's socket is.

    Parameters
    ----------
    daemon
        PID of the cluster's daemon, for a caller outside of the cluster.
    """

    def __init__(self, daemon: int | None = None) -> None:
        enter = [] if daemon is None else ["nsenter", f"--target={daemon}", "--mount", "--"]
        self._call = [*enter, "ctr", f"--address={SOCKET}", "--namespace=k8s.io"]

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        """Return the output of a call.

        Raises
        ------
        ClusterError
            If it fails.
        """
        argv = [*self._call, *arguments]
        done = subprocess.run(argv, check=False, input=stdin, capture_output=True)
        if done.returncode != 0:
            complaint = done.stderr.decode(errors="replace").strip()
            raise ClusterError(f"`{' '.join(argv)}` failed: {complaint}")
        return done.stdout.decode()

    def images(self, *filters: str) -> list[str]:
        """Return the names of the images that it has."""
        return self("images", "ls", "--quiet", *filters).split()
