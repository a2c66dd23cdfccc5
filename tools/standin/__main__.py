"""`python -m standin`: one stand-in worker, configured as the real supervisor is."""

from __future__ import annotations

if __name__ == "__main__":
    from dtjob_trainer.process import stop_at_start

    stop_at_start.exit_on_signal()  # before all that takes long to import

import os
import sys

from dtjob_trainer import supervisor
from standin.worker import StandIn

if __name__ == "__main__":
    code = supervisor.main(make=StandIn)
    sys.stderr.flush()
    # Not sys.exit: the ranks' threads may wait for ever.
    os._exit(code)
