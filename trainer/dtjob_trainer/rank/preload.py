"""Imported once by the forkserver, so that a new attempt's ranks start in hundredths of a second.

Importing torch and opacus takes 13 s of CPU on two cores; a process forked from here has them.
"""

from __future__ import annotations

import os
import signal

from dtjob_trainer.process import confine

# Ranks depend on the forkserver, and it on the supervisor: a kill of either ends all below it.
confine.end_with_parent(signal.SIGKILL)
# Ranks and store are forked with it.
confine.leave_stops_to_supervisor()

import opacus  # noqa: E402, F401
import torch  # noqa: E402
import torch.distributed  # noqa: E402, F401

# All that a rank needs of dtjob and its libraries, before it may import from the task's folder.
from dtjob_trainer.ledger import file_ledger, leasing  # noqa: E402, F401
from dtjob_trainer.mechanism import keys, optim, step  # noqa: E402, F401
from dtjob_trainer.mechanism.records import batches, opening  # noqa: E402, F401
from dtjob_trainer.preflight import rehearsal, task_validation  # noqa: E402, F401
from dtjob_trainer.rank import loop, rank  # noqa: E402, F401

if "KUBERNETES_SERVICE_HOST" in os.environ:
    import dtjob_trainer.ledger.kubernetes_ledger  # noqa: F401
