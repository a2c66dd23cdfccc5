"""Room for what a run can't do without: the logs on the same volume go for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dtjob_trainer.ledger.durable import VolumeFull
from dtjob_trainer.retention import log_volume

_Written = TypeVar("_Written")


def with_room(state_dir: Path, write: Callable[[], _Written]) -> _Written:
    """Write something; where the volume is full, once more without the logs in its way.

    The logs of earlier attempts go first, then those of this one. Until it is written nothing is
    added to them.

    Parameters
    ----------
    state_dir
        The checkpoint volume.
    write
        Changes nothing where it raises VolumeFull, and may be called again.

    Raises
    ------
    VolumeFull
        Without any logs there is no room either.
    """
    try:
        return write()
    except VolumeFull as error:
        full = error
    with log_volume.closed(state_dir):
        attempts = sorted({key.attempt for key in log_volume.sizes(state_dir)})
        for going in (attempts[:-1], attempts[-1:]):
            for attempt in going:
                log_volume.remove(state_dir, attempt)
            if going:
                try:
                    return write()
                except VolumeFull as error:
                    full = error
    raise full
