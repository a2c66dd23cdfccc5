"""Imported once by the forkserver, so that a new attempt's ranks start in hundredths of a second.

Importing torch and opacus takes 13 s of CPU on two cores; a process forked from here has them.
"""

from __future__ import annotations

import os
import signal

from dtjob_trainer import confine

# Ranks hang on the forkserver and the forkserver on the supervisor: who is killed takes all down.
confine.end_with_parent(signal.SIGKILL)

import opacus  # noqa: E402, F401
import torch  # noqa: E402
import torch.distributed  # noqa: E402, F401

import dtjob_trainer.rank  # noqa: E402

if "KUBERNETES_SERVICE_HOST" in os.environ:
    import dtjob_trainer.ledger_kubernetes  # noqa: F401
