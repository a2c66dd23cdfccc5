"""The isolation of one slot at the run's own number of rows: kernels choose by shape (Rule 8).

Tried on CPUs with 1 to 512 rows: products, convolutions, norms, recurrent layers and attention,
in fp32 and bf16, are isolated for all finite values. oneDNN's products of bf16 are not for NaN and
infinity where rows have an odd number of entries and there are some 30 rows: it reads one entry of
the next row, and multiplies it by zero. So NaN is tried here too.
"""

from __future__ import annotations

from dtjob_trainer.preflight.rows import poison
from dtjob_trainer.preflight.rows.blame import Change, check_unmoved
from dtjob_trainer.preflight.rows.passes import Batch, Passes, rows_of


def check(passes: Passes, batch: Batch, other: Batch, dims: dict[int, int]) -> None:
    """Refuse where another content of one slot moves the loss or gradient of another by a bit.

    Parameters
    ----------
    batch, other
        Of P rows each.
    dims
        Of `poison.embeddings_rows`.

    Raises
    ------
    TaskError
    """
    rows = rows_of(batch)
    base = passes.take(batch)
    if rows == 1:
        return
    for row in (0, rows - 1):
        changed = {name: tensor.clone() for name, tensor in batch.items()}
        for name, tensor in other.items():
            changed[name][row] = tensor[row]
        words = f"another example in row {row} of {rows}"
        check_unmoved(passes, batch, base, Change(row, changed, words))
    poison.check_values(passes, batch, base, rows // 2, dims)
