"""The process that tries a data set for its owner: started as a worker is, watched to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from dtjob_trainer.trial.data_check import Request
from dtjob_trainer.trial.notebook import Notebook
from dtjob_trainer.worker import deaths

_POLL_SECONDS = 0.05
_STANDARD_ERROR = 2


class DataProcess:
    """One such process.

    Attributes
    ----------
    end
        How it ended, such as `SIGKILL`; None while it goes on.
    """

    def __init__(self, process: subprocess.Popen[bytes], notebook: Notebook) -> None:
        self._process, self._notebook = process, notebook
        self.end: str | None = None

    def notes(self) -> Iterator[dict[str, Any]]:
        """Yield what it notes, the latest again and again, until it has ended."""
        page: dict[str, Any] = {}
        while self.end is None:
            self.end = self._ended()  # first: what it notes before its end is read after it
            page = self._notebook.read() or page
            yield page
            if self.end is None:
                time.sleep(_POLL_SECONDS)

    def _ended(self) -> str | None:
        """How it has ended; it is not reaped, so that its number is still its own."""
        end = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if end is None:
            return None
        if end.si_code == os.CLD_EXITED:
            return f"exit code {end.si_status}"
        return deaths.name_of(end.si_status)


@contextmanager
def started(request: Request, environment: Mapping[str, str]) -> Iterator[DataProcess]:
    """Start one; at the end of the block it is killed, with all that it has started."""
    descriptor = os.memfd_create("dtjob-check-data")
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",  # as for a worker: no library is imported from the task's folder
            "-m",
            "dtjob_trainer.trial.data_check",
            str(descriptor),
        ],
        stdin=subprocess.PIPE,
        stdout=_STANDARD_ERROR,  # what the task prints is no part of the result
        env=dict(environment),
        start_new_session=True,  # a Ctrl-C in the terminal reaches the command alone
        pass_fds=(descriptor,),
    )
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(asdict(request)).encode())
        yield DataProcess(process, Notebook(descriptor))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(descriptor)
