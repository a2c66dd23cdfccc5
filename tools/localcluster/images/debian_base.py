"""The base image of a machine that reaches Debian's packages but no image registry.

It stands in for the official slim image of Python: the same release of Debian, Python under both of
its names, pip and venv.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.base.namespaces import private_command

SUITE = "bookworm"
_PACKAGES = ("python3", "python3-pip", "python3-venv", "python-is-python3", "ca-certificates")
_DOCKERFILE = """\
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
CMD ["python3"]
"""
# What belongs to this machine, is made anew at run time, or is only needed to install more.
_LEFT_OUT = (
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    # As in the official image, pip may install into the system's folders.
    "./usr/lib/python3*/EXTERNALLY-MANAGED",
)
_recipe = "\n".join((SUITE, *_PACKAGES, _DOCKERFILE, *_LEFT_OUT))
_digest = hashlib.sha256(_recipe.encode()).hexdigest()
REFERENCE = f"localhost/{project.NAME}-base:{SUITE}-{_digest[:8]}"
"""Name of the image; it changes with the recipe."""


def prepare(folder: Path) -> None:
    """Write a Dockerfile and the file system it adds into `folder`.

    Raises
    ------
    ClusterError
        If mmdebstrap fails, with the end of its output.
    """
    root = folder / "rootfs"
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    _run(private_command([*argv, SUITE, str(root), *_mirror()]))
    tar = ["tar", "--numeric-owner", f"--directory={root}", f"--file={folder / 'rootfs.tar'}"]
    _run([*tar, *(f"--exclude={pattern}" for pattern in _LEFT_OUT), "--create", "."])
    _run(["rm", "-rf", "--one-file-system", str(root)])
    (folder / "Dockerfile").write_text(_DOCKERFILE)


def _mirror() -> list[str]:
    """Return the mirror that this machine's apt uses for the suite; mmdebstrap's own if none."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    argv += ["Created-By: Packages", f"Codename: {SUITE}", "Component: main"]
    listed = subprocess.run(argv, check=False, capture_output=True, text=True).stdout.split()
    return listed[:1]


def _run(argv: list[str]) -> None:
    done = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-10:])
        raise ClusterError(f"making the base image failed:\n{tail}\n")
