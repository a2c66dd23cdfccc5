"""Digits at a chosen speed, by a task that writes down each use of its private data.

It knows nothing of draws, leases and attempts: a line says which records one process was given for
one logical batch. Worker pods import it from a ConfigMap.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dtjob_trainer.task import Task
from dtjob_trainer.tasks import digits

RECORDS = Path("/witness")
"""The folder of a volume that all workers share."""
HURRY = "hurry"
"""A file that a test puts beside the records: from then on steps take no longer than they must."""


def record(host: str) -> str:
    """The file of one worker, by the name of its pod."""
    return f"{host}.jsonl"


class _Watched:
    """The private records, and which of them were asked for since the last batch."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._process = uuid.uuid4().hex
        self._path = RECORDS / record(os.uname().nodename)
        self._ids: list[int] = []

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Any:
        self._ids.append(index)
        return self._records[index]

    def note(self) -> None:
        """Write down the batch, durably enough to outlive a killed process.

        One for which nothing was read is the same once more: a draw that is looked at.
        """
        ids, self._ids = self._ids, []
        if not ids:
            return
        digest = hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
        line = {"process": self._process, "time": time.time(), "records": digest}
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)


def task(args: Mapping[str, Any]) -> Task:
    """`seconds`: how long each rank's share of a step takes at least, until told to hurry."""
    seconds, opened = float(args["seconds"]), []
    plain = digits.task({})

    def dataset() -> Any:
        opened.append(_Watched(plain.dataset()))
        return opened[-1]

    def losses(model: Any, batch: Any) -> Any:
        if opened:  # else the dry run on synthetic data
            opened[-1].note()
        if not (RECORDS / HURRY).exists():
            time.sleep(seconds)
        return plain.losses(model, batch)

    return replace(plain, dataset=dataset, losses=losses)
