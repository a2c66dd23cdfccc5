"""What the task's own code makes of gradients: in hooks, and where it writes a backward pass.

A number of all rows may come out there, as the gradient of a weight does, which no step uses: it
takes those of each row. It may not go back into what has rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FrameType

import torch

from dtjob_trainer.mechanism.opacus_hooks import is_hooks_module
from dtjob_trainer.mechanism.watch.structure import storage_of

# From here on outwards it is dtjob who takes gradients, and no code of the task's is of the pass.
_TAKES_GRADIENTS = frozenset(
    f"dtjob_trainer.mechanism.{name}" for name in ("opacus_hooks", "per_example")
)
_OWN = ("torch.", "dtjob_trainer.")


def runs_in_task(frame: FrameType | None) -> bool:
    """Whether code of the task's, or of a library, runs an operator of the backward pass.

    Not where Opacus' hooks run a module once more, to take the gradients of each row.

    Parameters
    ----------
    frame
        Of who runs it. On GPUs it is in autograd's own thread, which begins with the hook.
    """
    found = False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if is_hooks_module(module):
            return False
        if module in _TAKES_GRADIENTS:
            return found
        found |= not module.startswith(_OWN)
        frame = frame.f_back
    return found


class OfAllRows:
    """By storage, which operator of the backward pass has made something of all rows."""

    def __init__(self) -> None:
        self._made_by: dict[int | None, int] = {}

    def note(self, number: int, gave: Iterable[int | None]) -> None:
        """Note that operator `number` did, and where what it gave lies."""
        self._made_by.update(dict.fromkeys(gave, number))

    def source(self, given: Iterable[int | None]) -> int | None:
        """Return which operator made something that lies there; None for none."""
        return next((self._made_by[each] for each in given if each in self._made_by), None)


class Kept:
    """Keeps what operators give, so that each address is that of one storage in a pass."""

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []

    def addresses(self, tensors: list[torch.Tensor]) -> tuple[int | None, ...]:
        """Return where they lie."""
        self._tensors += tensors
        return tuple(map(storage_of, tensors))
