"""The isolation of slots at the run's own number of rows: kernels choose by shape (Rule 8).

Tried on CPUs with 1 to 512 rows: products, convolutions, norms, recurrent layers and attention,
in fp32 and bf16, are isolated for all finite values. oneDNN's products of bf16 are not for NaN and
infinity where rows have an odd number of entries and there are some 30 rows: it reads one entry of
the next row, and multiplies it by zero. So NaN is tried here too.
"""

from __future__ import annotations

from dataclasses import replace

from dtjob_trainer.preflight.rows import poison
from dtjob_trainer.preflight.rows.blame import Change, check_unmoved, is_harmless
from dtjob_trainer.preflight.rows.passes import Batch, Pass, Passes, rows_of


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
    if rows == 1 or _all_at_once(passes, batch, other, base, dims):
        return
    for row in (0, rows - 1):
        words = f"another example in row {row} of {rows}"
        check_unmoved(passes, batch, base, Change((row,), _exchanged(batch, other, (row,)), words))
    poison.check_values(passes, batch, base, rows // 2, dims)


def check_equal(passes: Passes, batch: Batch, other: Batch) -> None:
    """Refuse where the first or the last rows decide about others that were equal to them.

    Equal rows fill what has a capacity for the whole batch, as experts may have for tokens, by
    whichever end it is filled from. A quarter of them changes, since some may be to the model as
    they were, at one end after the other: the rows that win or lose by it may be at the other.

    Parameters
    ----------
    batch, other
        Of P rows each.

    Raises
    ------
    TaskError
    """
    rows = rows_of(batch)
    if rows == 1:
        return
    equal = {name: tensor[:1].expand_as(tensor).clone() for name, tensor in batch.items()}
    some = -(-rows // 4)
    base = passes.take(equal, cause=f"a batch of {rows} equal rows")
    for end, changed in (("first", range(some)), ("last", range(rows - some, rows))):
        exchanged = _exchanged(equal, other, tuple(changed))
        words = f"{some} other examples, the {end} ones, among {rows} equal ones"
        check_unmoved(passes, equal, base, Change(tuple(changed), exchanged, words))


def _all_at_once(
    passes: Passes, batch: Batch, other: Batch, base: Pass, dims: dict[int, int]
) -> bool:
    """Whether the first and the last row and one of NaN, in one pass, move none of the rest.

    It shows what each of them would show but in the rows that change. False where there are too
    few rows for that, or an operator raises.
    """
    rows = rows_of(batch)
    changed = (0, rows // 2, rows - 1)
    if rows < 3 * len(changed):
        return False
    exchange = Change(changed, _exchanged(batch, other, (0, rows - 1)), "")
    poisoned = poison.values(exchange.batch, rows // 2, dims)
    if poisoned is not None:
        exchange = replace(poisoned, rows=changed)
    return is_harmless(passes, base, exchange)


def _exchanged(batch: Batch, other: Batch, rows: tuple[int, ...]) -> Batch:
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    for name, tensor in other.items():
        changed[name][list(rows)] = tensor[list(rows)]
    return changed
