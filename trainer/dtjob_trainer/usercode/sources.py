"""The digest of a task's sources, by which a run knows again what it has tried before."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import os
from collections.abc import Iterator
from pathlib import Path

#: What Python imports, and nothing that a task writes: its outputs may lie beside it.
_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_CACHE = "__pycache__"
#: Beside a lone module may lie a whole home directory, for which no start has time.
_MOST_ENTRIES = 20_000
_MOST_BYTES = 2**26


def digest(root: Path, apart_from: str | None) -> str | None:
    """SHA-256 of all sources at or below `root`, with their places; hidden folders are none.

    Parameters
    ----------
    root
        The folder of a task's code, or its only file.
    apart_from
        A folder that isn't looked into: that of the data.

    Returns
    -------
    str or None
        None where one of them can't be read, or there is too much to look through.
    """
    found, size = [], 0
    try:
        for path in _sources(root, apart_from):
            size += path.stat().st_size
            if size > _MOST_BYTES:
                return None
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.append((str(path.relative_to(root.parent)), content))
    except OSError:
        return None
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def _sources(root: Path, apart_from: str | None) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    data = os.path.realpath(apart_from) if apart_from is not None else None
    entries = 0
    for place, folders, files in os.walk(root, onerror=_raise, followlinks=True):
        entries += len(folders) + len(files)
        if entries > _MOST_ENTRIES:
            raise OSError(f"more than {_MOST_ENTRIES} entries below {root}")
        folders[:] = [
            folder
            for folder in folders
            if not folder.startswith(".")
            and folder != _CACHE
            and os.path.realpath(os.path.join(place, folder)) != data
        ]
        yield from (
            path
            for name in files
            if name.endswith(_SUFFIXES) and (path := Path(place, name)).is_file()
        )


def _raise(error: OSError) -> None:
    raise error
