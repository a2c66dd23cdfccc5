"""What the zoo says of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dtjob_trainer.task import Task


@dataclass(frozen=True)
class Entry:
    """A model in the zoo.

    Attributes
    ----------
    name
        Unique, e.g. `"gpt2"`; the id of its tests.
    task
        Makes its task, with no data set. Imports what it needs when it is called.
    refused
        Words that the validator refuses it with, the module's name and the remedy among them;
        empty where it is accepted.
    random
        Whether a pass takes random numbers.
    """

    name: str
    task: Callable[[], Task]
    refused: tuple[str, ...] = ()
    random: bool = False
