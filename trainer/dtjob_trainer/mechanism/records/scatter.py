"""Where the records of a draw sit: in uniformly random slots, of which padding fills the rest.

A record more then fills one slot that held padding, and no other record moves, in distribution:
a uniform injection of S ∪ {x} into the slots, restricted to S, is a uniform one of S, and x has a
uniform one of the free slots. What a slot adds to the sum may thus depend on its record, its place
and any random numbers, public ones too, and the sum still changes by one clipped gradient (Rule 8).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dtjob_trainer.mechanism.prf import words
from dtjob_trainer.mechanism.records.sampling import Reading

PADDING = -1
"""The id of a slot without a record."""
# The second words of an order, which decide where two first ones are equal.
_SECOND_WORDS = 1 << 63


class Layout(NamedTuple):
    """The slots of a step: W ranks with M micro-batches of P rows each (Rule 8).

    It is fixed for an attempt, and never follows a draw.
    """

    ranks: int
    micro_batches: int
    rows: int

    @property
    def slots(self) -> int:
        """K = W·M·P."""
        return self.ranks * self.micro_batches * self.rows


class Slots(NamedTuple):
    """What each slot of a draw holds.

    Attributes
    ----------
    ids
        int64[W, M, P], or one micro-batch or a few more where a draw overflows its slots; slot s
        is row s mod P of micro-batch ⌊s/P⌋ mod M of rank ⌊s/(M·P)⌋. `PADDING` where no record is.
    drawn
        bool[W, M, P]: the slots that count.
    """

    ids: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.bool_]


def scatter(key: bytes, draw: int, reading: Reading, layout: Layout) -> Slots:
    """Put what a draw reads into uniformly random slots, the same on every rank.

    Where a draw has more records than slots, a uniform choice of them fills these, and the others
    follow in extra micro-batches, in random order: none is dropped. How likely that may be is a
    part of δ (`dtjob_accounting.draws.overflow_tail`).

    Parameters
    ----------
    key
        The attempt's order key, which serves nothing else.
    draw
        The job's charge index c.
    """
    count = max(len(reading.ids), layout.slots)
    ids = np.full(count, PADDING)
    drawn = np.zeros(count, dtype=np.bool_)
    ids[: len(reading.ids)], drawn[: len(reading.ids)] = reading
    order = random_order(key, draw, count)
    parts = [(order[: layout.slots], layout)]
    if excess := count - layout.slots:
        extra = layout._replace(micro_batches=-(-excess // (layout.ranks * layout.rows)))
        parts.append((order[layout.slots :], extra))
    return Slots(
        np.concatenate([_laid_out(ids[at], PADDING, shape) for at, shape in parts], axis=1),
        np.concatenate([_laid_out(drawn[at], False, shape) for at, shape in parts], axis=1),
    )


def random_order(key: bytes, draw: int, count: int) -> npt.NDArray[np.intp]:
    """Return a permutation of 0 .. count − 1 by the order of 128-bit words: uniform, no modulo."""
    first = words(key, draw, 0, count)
    second = words(key, draw, _SECOND_WORDS, count)
    return np.lexsort((second, first))


def _laid_out(values: npt.NDArray[Any], padding: object, layout: Layout) -> npt.NDArray[Any]:
    flat = np.full(layout.slots, padding, dtype=values.dtype)
    flat[: len(values)] = values
    return flat.reshape(layout)
