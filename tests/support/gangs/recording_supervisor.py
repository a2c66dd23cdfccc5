"""The real supervisor, with each draw written down by an independent hand before it is executed.

`python recording_supervisor.py RECORD GATE --config FILE --position K`

While the file `GATE` is there, the step that it names and later ones go no further than that.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dtjob_trainer import supervisor
from dtjob_trainer.mechanism import prf
from dtjob_trainer.rank import rank
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker.forkserver import Forkserver


class Recorder:
    """Notes attempt, rank, process, draw and step, and what the keys give for that draw."""

    def __init__(self, step: Any, setup: RankSetup, record: Path, gate: Path) -> None:
        self._step, self._setup, self._record, self._gate = step, setup, record, gate

    def run(self, draw: int, step: int) -> None:
        keys = self._step._keys
        line = {
            "attempt": self._setup.attempt,
            "rank": self._setup.rank,
            "pid": os.getpid(),
            "draw": draw,
            "step": step,
            "mask": _digest(keys.sampling, draw),
            "noise": _digest(keys.noise, draw),
        }
        descriptor = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)
        while self._is_shut(step):
            time.sleep(0.01)
        self._step.run(draw, step)

    def _is_shut(self, step: int) -> bool:
        try:
            return step >= int(self._gate.read_text())
        except FileNotFoundError:
            return False


def _digest(key: bytes, draw: int) -> str:
    return hashlib.sha256(prf.words(key, draw, 0, 64).tobytes()).hexdigest()[:16]


def recorded_rank(setup: RankSetup, pipe: Connection, *, record: Path, gate: Path) -> None:
    rank.main(setup, pipe, watch=lambda step: Recorder(step, setup, record, gate))


if __name__ == "__main__":
    target = functools.partial(recorded_rank, record=Path(sys.argv[1]), gate=Path(sys.argv[2]))

    def recorded(config: Any, position: int, log: Any) -> Any:
        from dtjob_trainer.worker.supervision import (
            Supervisor,  # not in the ranks, which execute this file too
        )

        return Supervisor(config, position, Forkserver(target), log)

    code = supervisor.main(sys.argv[3:], recorded)
    sys.stderr.flush()
    os._exit(code)
