"""Where things are kept: everything outside of the checkout, under one cache folder.

`tools/`
    Binaries, one folder for each family and version; shared by all clusters.
`clusters/<name>/`
    State of one running cluster; removed by `down`.
`images/`
    What makes the next start warm: the image builder's layers and, for each cluster name,
    containerd's folder, whose layers are hard links to the builder's. `down --purge` removes the
    cluster's.
"""

from __future__ import annotations

import os
from pathlib import Path

from localcluster.base import project


def cache_folder() -> Path:
    """Return the folder that a variable names, or the project's in the user's cache folder."""
    named = os.environ.get(project.CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / project.NAME


def tools_cache() -> Path:
    """Return the folder that holds `<family>-<version>/<command>` binaries."""
    named = os.environ.get(project.TOOLS_CACHE_VARIABLE)
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
    """Return the folder beside this package with one Go module for each family of binaries."""
    return import_folder() / "go"


def import_folder() -> Path:
    """Return the folder from which this package is imported."""
    return Path(__file__).resolve().parents[2]
