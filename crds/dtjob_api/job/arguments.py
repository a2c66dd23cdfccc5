"""How large `spec.training.args` may be: what no schema can bound, since its fields are the user's.

A worker gets them in a variable, of which Linux takes 128 KiB, and its decoder follows JSON for 200
levels. The API server stores what is larger, and no worker would ever start.
"""

from __future__ import annotations

import json
from typing import Any

from dtjob_api.model import Json

MAX_BYTES = 2**16
"""Bytes of the arguments as JSON in ASCII, in which a letter beyond that takes six."""

MAX_LEVELS = 64
"""Objects and lists in one another, the arguments themselves being the first."""

_REMEDY = "put it into a file, in the image or on a volume, and its name into the arguments"


def too_large(args: Json) -> str | None:
    """Why the arguments can't be handed to a worker: field, size, limit and remedy; None: they can.

    Parameters
    ----------
    args
        JSON values, however deeply nested.
    """
    levels = _levels(args)
    if levels > MAX_LEVELS:
        return _refusal(f"objects and lists in {levels} levels, of at most {MAX_LEVELS}")
    size = len(json.dumps(args, separators=(",", ":")))
    return _refusal(f"{size} bytes as JSON, of at most {MAX_BYTES}") if size > MAX_BYTES else None


def _refusal(found: str) -> str:
    return f"spec.training.args: Invalid value: {found}; {_REMEDY}"


def _levels(value: Any) -> int:
    """How deep a value is, without recursion: it may be deeper than Python goes."""
    levels, layer = 0, [value]
    while layer := [each for each in layer if isinstance(each, dict | list)]:
        levels += 1
        layer = [
            child for each in layer for child in (each.values() if isinstance(each, dict) else each)
        ]
    return levels
