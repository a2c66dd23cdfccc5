"""How a worker's supervisor ends, as its kubelet, the operator and `dtjob run` read it.

An image may hold a trainer of another version than the operator's: no number changes its meaning.
"""

from __future__ import annotations

from enum import IntEnum


class WorkerExit(IntEnum):
    """Exit codes of a supervisor; any other is a death."""

    OK = 0
    """The job has succeeded, or the worker was told to stop."""
    FAILED = 1
    """The job has failed."""
    CONFIGURATION = 2
    """Nothing was begun: the worker's configuration can't be used."""
    HELD = 3
    """Held until a person has put something right."""
    SUPERSEDED = 4
    """A newer attempt has taken over."""
