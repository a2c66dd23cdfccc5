"""Where a task finds its private data, and that it looks nowhere before `dataset()` (Rule 20).

Until then the words of its errors leave the pod in full, a record that a library quotes included.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

#: Names the folder to the task, if the job has a data volume.
VARIABLE = "DTJOB_DATA_DIR"

_NOT_SET = (
    f"this worker has no {VARIABLE}, since the job's spec.storage.data is not set: set it in a new "
    "job (in a local run: give --data)"
)
_NOT_YET = (
    f"{VARIABLE} is set when dataset() is called and not before: look for it in there, where what "
    "an error says of a record is kept back"
)
#: Code may lie beside the data; it is imported, and its lines are shown in tracebacks.
_CODE = (".py", ".pyc")


class ReadTooEarly(RuntimeError):
    """Private data are read before `dataset()` is called."""


class _Gate:
    """Refuses to have a file opened below a folder while it is closed.

    By an audit hook (PEP 578), which can't be removed: while nothing is closed it returns at once.
    Readers written in C++ ask nobody.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self._is_installed = False

    def close(self, folder: str | None) -> None:
        self.folder = None if folder is None else os.path.realpath(folder)
        if not self._is_installed:
            sys.addaudithook(self._refuse)
            self._is_installed = True

    def _refuse(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None or event != "open":
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor of what was opened before
        real = os.path.realpath(os.fsdecode(path))
        below = os.path.commonpath([real, self.folder]) == self.folder
        if below and not real.endswith(_CODE):
            raise ReadTooEarly(
                "private data are read before dataset() is called, when what an error says of a "
                "record would leave the pod: read them in there"
            )


_GATE = _Gate()


@contextlib.contextmanager
def closed(folder: str | None) -> Iterator[None]:
    """While task code runs herein, refuse to have files of the data folder opened, but for code."""
    os.environ.pop(VARIABLE, None)
    _GATE.close(folder)
    try:
        yield
    finally:
        _GATE.close(None)


def announce(folder: str) -> None:
    """Name the data folder to the task, for the call of `dataset()` and what follows."""
    os.environ[VARIABLE] = folder


def remedy(error: BaseException) -> str | None:
    """What to do, if the task asked its environment for `VARIABLE`, which is not set.

    Reveals nothing of any record, also once they are in memory (Rule 20): the name is dtjob's own,
    and that it is not set is public.
    """
    if not isinstance(error, KeyError) or VARIABLE in os.environ:
        return None
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    by_environment = bool(frames) and frames[-1] is os._Environ.__getitem__.__code__
    if not by_environment or error.args != (VARIABLE,):
        return None
    return _NOT_SET if _GATE.folder is None else _NOT_YET
