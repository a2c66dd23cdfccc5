"""How much of a rank's log is kept, and what goes for it: a function of what is there.

The bound holds for the whole job. Within an attempt each rank has the same share, so that one that
prints much takes nothing from the others. Of a log that has used up its share the end stays: it
says why it ended. Earlier attempts make room for later ones, the oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

#: Room for the line that says what was cut or dropped.
MARK_BYTES = 160


class LogKey(NamedTuple):
    """Whose log it is."""

    attempt: int
    rank: int


@dataclass(frozen=True)
class Decision:
    """What becomes of more of a log.

    Attributes
    ----------
    takes
        Bytes that are written, of the end of what came.
    keeps
        Bytes that stay of what the log held, of its end; None: all of them, as they are.
    removes
        Attempts whose logs go, the oldest first.
    """

    takes: int
    keeps: int | None = None
    removes: tuple[int, ...] = ()


def decide(
    sizes: Mapping[LogKey, int], key: LogKey, grows_by: int, *, limit: int, ranks: int
) -> Decision:
    """What becomes of `grows_by` more bytes of the log `key`.

    Parameters
    ----------
    sizes
        Bytes of each log that is kept.
    limit
        Bytes that all logs may have together.
    ranks
        Ranks of the attempt: each has `limit // ranks` bytes.
    """
    share = limit // ranks
    held = sizes.get(key, 0)
    takes, keeps = min(grows_by, share), None
    if held + takes > share:
        # Half of it, so that a log that grows is not written anew with each line.
        keeps = max(0, share // 2 - takes - MARK_BYTES)
        takes = min(takes, max(0, share - MARK_BYTES))
    stays = held if keeps is None else min(keeps, held) + MARK_BYTES
    total = sum(sizes.values()) - held + stays + takes
    removes = []
    for attempt in sorted({other.attempt for other in sizes if other.attempt < key.attempt}):
        if total <= limit:
            break
        total -= sum(size for other, size in sizes.items() if other.attempt == attempt)
        removes.append(attempt)
    if total > limit:
        return Decision(takes=0)  # later attempts have the room
    return Decision(takes, keeps, tuple(removes))
