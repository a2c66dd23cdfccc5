"""Where things are kept: everything outside of the checkout, under one cache folder.

``tools/``
    Binaries, one folder for each family and version; shared by all clusters.
``clusters/<name>/``
    State of one running cluster; removed by ``down``.
``images/``
    What makes the next start warm: the image builder's layers and, for each cluster name,
    containerd's folder, whose layers are hard links to the builder's. ``down --purge`` removes the
    cluster's.
"""

from __future__ import annotations

import os
from pathlib import Path

TOOLS_CACHE_VARIABLE = "DTJOB_TOOLS_CACHE"


def cache_folder() -> Path:
    """Return the folder that DTJOB_CACHE names, or dtjob's in the user's cache folder."""
    named = os.environ.get("DTJOB_CACHE")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "dtjob"


def tools_cache() -> Path:
    """Return the folder that holds ``<family>-<version>/<command>`` binaries."""
    named = os.environ.get(TOOLS_CACHE_VARIABLE)
    return Path(named).absolute() if named else cache_folder() / "tools"


def clusters_folder() -> Path:
    """Return the folder with one state folder for each cluster name."""
    return cache_folder() / "clusters"


def images_folder() -> Path:
    """Return the folder of everything that is kept of images between runs."""
    return cache_folder() / "images"


def uv_cache() -> Path:
    """Return where uv keeps what it has downloaded and unpacked for this user."""
    named = os.environ.get("UV_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named or f"{base}/uv").absolute()


def go_modules() -> Path:
    """Return ``tools/go`` of this checkout, one Go module for each family of binaries."""
    return Path(__file__).resolve().parent.parent / "go"
