"""A change to a stored object, allowed or refused; for the offline rules and for API servers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
REMOVED = object()
"""As a value in `edited`: the field is taken away."""


def edited(original: Json, changes: dict[str, Any]) -> Json:
    """A copy with dotted paths set to new values."""
    result = copy.deepcopy(original)
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = result
        for key in parents:
            target = target.setdefault(key, {})
        if value is REMOVED:
            target.pop(last, None)
        else:
            target[last] = value
    return result


@dataclass(frozen=True)
class Transition:
    """A stored object, the change, and the fields that the API server then complains of.

    `part` is what the writer sends: "spec" to the object itself, "status" to its subresource.
    An empty `refused` means that the change is allowed.
    """

    name: str
    stored: Json
    changes: dict[str, Any]
    part: str = "spec"
    refused: tuple[str, ...] = ()

    @property
    def changed(self) -> Json:
        return edited(self.stored, self.changes)
