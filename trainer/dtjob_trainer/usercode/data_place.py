"""Where a task finds its private data, and the message where it looks in vain."""

from __future__ import annotations

import os
import traceback

#: Names the folder to the task, if the job has a data volume.
VARIABLE = "DTJOB_DATA_DIR"

NOT_SET = (
    f"this worker has no {VARIABLE}, since the job's spec.storage.data is not set: set it in a new "
    "job (in a local run: give --data)"
)


def is_missed(error: BaseException) -> bool:
    """Whether the task asked its environment for `VARIABLE`, which is not set.

    Reveals nothing of any record, also once they are in memory (Rule 20): the name is dtjob's own,
    and that it is not set is public.
    """
    if not isinstance(error, KeyError) or VARIABLE in os.environ:
        return False
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    by_environment = bool(frames) and frames[-1] is os._Environ.__getitem__.__code__
    return by_environment and error.args == (VARIABLE,)
