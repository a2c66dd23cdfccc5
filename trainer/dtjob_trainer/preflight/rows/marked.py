"""Operators of a pass, told apart by whether they are given anything of the batch."""

from __future__ import annotations

from typing import Any

from dtjob_trainer.mechanism.watch.structure import Look, looked_at
from dtjob_trainer.preflight.rows.operators import Operators
from dtjob_trainer.preflight.rows.passes import Batch, Passes


class MarkedOperators(Operators):
    """Runs the operators of a pass while the batch, and what derives from it, is marked.

    Parameters
    ----------
    batch
        That of the pass.
    """

    look: Look

    def __init__(self, passes: Passes, batch: Batch) -> None:
        super().__init__()
        self._looking = looked_at(passes.model, batch)

    def __enter__(self) -> Any:
        self.look = self._looking.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._looking.__exit__(*error)
