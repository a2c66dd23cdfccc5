"""What a process says of itself, in memory that outlives it.

A pipe would lack what it found last where a record kills it, and stay open where it has forked.
"""

from __future__ import annotations

import json
import os
from typing import Any

_LENGTH_BYTES = 8


class Notebook:
    """One page, of which each writing replaces the one before.

    Parameters
    ----------
    descriptor
        Of a file that nobody else writes.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, page: dict[str, Any]) -> None:
        """Replace the page."""
        text = json.dumps(page).encode()
        os.pwrite(self._descriptor, len(text).to_bytes(_LENGTH_BYTES, "big") + text, 0)

    def read(self) -> dict[str, Any] | None:
        """Return the page; None while there is none, or it is half written."""
        length = int.from_bytes(os.pread(self._descriptor, _LENGTH_BYTES, 0), "big")
        try:
            page: dict[str, Any] = json.loads(os.pread(self._descriptor, length, _LENGTH_BYTES))
        except ValueError:
            return None
        return page
