"""A copy of the checkout in which one mutation at a time is made, and taken back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from mutations.catalog import Mutation

_times = count(1_000_000_000)


def copy(root: Path, folder: Path) -> None:
    """Copy what git knows, or would, of the checkout at `root`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():  # not what was removed and is not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)


@contextmanager
def mutated(folder: Path, mutation: Mutation) -> Iterator[None]:
    """Have the mutation in a copy.

    Raises
    ------
    catalog.NotApplicable
    """
    path = folder / mutation.file
    text, was = path.read_text(), path.stat()
    path.write_text(mutation.of(text))
    # Python takes compiled code for that of a file of the same size and second.
    os.utime(path, (next(_times),) * 2)
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
