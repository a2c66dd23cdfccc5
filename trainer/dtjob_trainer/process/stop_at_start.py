"""A process that is told to stop before it has begun anything exits at once.

The kernel drops a signal for which PID 1 of a container has no handler: a pod that is deleted in
its first moments would stay for its whole grace period, and begin an attempt meanwhile. Handlers
and no blocked signals: a mask would be inherited by all that the process starts.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def exit_on_signal(exit_code: int = 0) -> None:
    """Have this process end with `exit_code`, as after any stop in order, until others are set.

    What is ignored stays so, as `nohup` wants it.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        os._exit(exit_code)  # nothing has been started, opened or written

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)
