"""The process that tries a data set for its owner: started as a worker is, watched to its end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, Self

from dtjob_trainer.trial.data_check import Place, Request
from dtjob_trainer.worker import deaths

_POLL_SECONDS = 0.1
_STANDARD_ERROR = 2


class DataProcess:
    """What one such process says.

    Attributes
    ----------
    end
        How it ended, such as `SIGKILL`; None while it goes on.
    """

    def __init__(self, process: subprocess.Popen[bytes], channel: int, place: Place) -> None:
        self._process, self._channel, self._place = process, channel, place
        self._left = b""
        self.end: str | None = None

    @classmethod
    @contextmanager
    def started(cls, request: Request, environment: Mapping[str, str]) -> Iterator[Self]:
        """Start one; kill it at the end of the block."""
        place = os.memfd_create("dtjob-check-data", 0)
        reader, writer = os.pipe()
        Place(place).at(None)
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # as for a worker: no library is imported from the task's folder
                    "-m",
                    "dtjob_trainer.trial.data_check",
                    str(writer),
                    str(place),
                ],
                stdin=subprocess.PIPE,
                stdout=_STANDARD_ERROR,  # what the task prints is no part of the result
                env=dict(environment),
                start_new_session=True,  # a Ctrl-C in the terminal reaches the command alone
                pass_fds=(writer, place),
            )
            os.close(writer)
            with process:
                try:
                    assert process.stdin is not None
                    with suppress(BrokenPipeError), process.stdin as stdin:
                        stdin.write(json.dumps(asdict(request)).encode())
                    yield cls(process, reader, Place(place))
                finally:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        finally:
            os.close(reader)
            os.close(place)

    def messages(self) -> Iterator[dict[str, Any] | None]:
        """Yield what it says, and None now and then, until it has ended."""
        while True:
            ready, _, _ = select.select([self._channel], [], [], _POLL_SECONDS)
            data = os.read(self._channel, 1 << 16) if ready else b""
            if data:
                *lines, self._left = (self._left + data).split(b"\n")
                yield from map(json.loads, lines)
            elif (ended := self._ended()) is not None:
                # Not by the end of the pipe: what the task has forked may hold it.
                self.end = ended
                return
            else:
                yield None

    def _ended(self) -> str | None:
        """How it has ended; it is not reaped, so that its number is still its own."""
        end = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if end is None:
            return None
        if end.si_code == os.CLD_EXITED:
            return f"exit code {end.si_status}"
        return deaths.name_of(end.si_status)

    @property
    def reading(self) -> int | None:
        """Which record it reads, or read when it ended; None for none."""
        return self._place.read()
