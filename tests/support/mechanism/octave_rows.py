"""Rows by whose fp32 sum a record shows more than its own part: the worst known for a chain."""

from __future__ import annotations

import math

import torch

_SIGNIFICAND = 23

# Each thread adds up a part of the rows, so that more of them show less.
torch.set_num_threads(1)


def octave_rows(rows: int, coordinates: int, norm: float) -> torch.Tensor:
    """Return fp32[rows, coordinates] of norms up to `norm`, of which row 0 is the record.

    In each coordinate the first half add up to just over a power of two with the record and to
    just under without it, exactly. Each of the other half takes away just less than half an ulp
    of what lies over: nothing with the record, and one ulp of what lies under without. So a chain
    over all rows moves by the record and by about rows²·2⁻²⁶·norm besides.

    Parameters
    ----------
    rows
        At least 4.
    norm
        From 1.03 to 1.9 times a power of two, for an even power of two of coordinates and a power
        of two of rows: then no row is longer than that.
    """
    lifts = rows // 2 - 1
    each = norm / math.sqrt(coordinates)
    exponent = math.floor(math.log2(lifts * each))
    ulp = 2.0 ** (exponent - _SIGNIFICAND)
    lowest, more = divmod(round((2.0**exponent - each / 2) / ulp), lifts)
    made = torch.empty(rows, coordinates)
    made[0] = each
    made[1 : 1 + more] = (lowest + 1) * ulp
    made[1 + more : 1 + lifts] = lowest * ulp
    made[1 + lifts :] = -(1 - 2**-10) * ulp / 2
    return made


def in_one_chain(rows: torch.Tensor) -> torch.Tensor:
    """Return the sum of rows as one fp32 chain makes it, whatever the machine: fp64[n]."""
    total = torch.zeros(rows.shape[1])
    for row in rows:
        total = total + row
    return total.double()
