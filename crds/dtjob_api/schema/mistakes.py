"""What a person is shown of a manifest that is refused: all mistakes at once, and what was meant.

The API server stops at each kind of mistake: unknown fields hide wrong types, and these the rules.
Its words stay as they are; a remedy follows them.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dtjob_api.model import Json
from dtjob_api.schema.structural import BLOCKING, ErrorKind, FieldError
from dtjob_api.schema.validation import NOT_CHECKED, checkable, crd_of, strict_schema, validate

_ROUNDS = 10  # each mends what the one before has found
_LARGEST = 1 << 53  # beyond it a double is not the integer that was written
_MORE = (
    "Rules that need these fields are not checked until they are corrected: more may be wrong "
    "with what stands beside them."
)


@dataclass(frozen=True)
class _Meant:
    """What a mistake was likely meant to be: a remedy to read, and how to go on looking.

    Attributes
    ----------
    remedy
        Follows the API server's words; empty where nothing is known.
    key, value
        What stands in the place of the mistake meanwhile; without a key nothing does.
    """

    remedy: str = ""
    key: str | int | None = None
    value: Any = None


def mistakes(manifest: Json) -> list[str]:
    """Return all that is wrong with a manifest, in the API server's words and with a remedy.

    What is plainly meant, such as a number in quotes or a field in lower case, is taken for that
    while the rest is checked. Rules are evaluated where nothing is wrong within what they are of.

    Returns
    -------
    list of str
        Empty for a valid manifest.
    """
    crd = crd_of(manifest)
    if crd is None:
        return [str(error) for error in validate(manifest)]
    shown: dict[str, str] = {}
    schema, mended = strict_schema(crd), copy.deepcopy(manifest)
    for _ in range(_ROUNDS):
        errors = [error for error in validate(mended, crd) if error is not NOT_CHECKED]
        before = copy.deepcopy(mended)
        for error in errors:
            shown.setdefault(str(error), f"{error}{_mend(mended, error, schema)}")
        if mended == before:
            break
    blocked = [error.field for error in errors if error.kind in BLOCKING]
    if not blocked:
        return list(shown.values())
    for error in checkable(mended, blocked, crd):
        shown.setdefault(str(error), str(error))
    return [*shown.values(), _MORE]


def _mend(manifest: Json, error: FieldError, schema: Json) -> str:
    """Put what was meant in the place of a mistake; return the remedy."""
    place = _place(manifest, error.field, schema)
    if place is None:
        return ""
    parent, key, around = place
    meant = _meant(error, key, parent[key], around)
    unknown = error.kind is ErrorKind.UNKNOWN_FIELD
    if unknown:
        del parent[key]
    if meant.key is not None and not (unknown and meant.key in parent):
        parent[meant.key] = meant.value
    return meant.remedy


def _place(value: Any, field: str, schema: Json) -> tuple[Any, str | int, Json] | None:
    """Find a field's parent, its key there, and the parent's schema."""
    found: tuple[Any, str | int, Json] | None = None
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", field):
        if found is not None:
            value, schema = found[0][found[1]], _below(found[2], found[1])
        if name and isinstance(value, dict) and name in value:
            found = value, name, schema
        elif index and isinstance(value, list) and int(index) < len(value):
            found = value, int(index), schema
        else:
            return None
    return found


def _below(schema: Json, key: str | int) -> Json:
    others = schema.get("items" if isinstance(key, int) else "additionalProperties", {})
    found: Json = schema.get("properties", {}).get(key, others)
    return found


def _meant(error: FieldError, key: str | int, value: Any, around: Json) -> _Meant:
    schema = _below(around, key)
    if error.kind is ErrorKind.UNKNOWN_FIELD:
        near = _nearest(str(key), around.get("properties", {}))
        return _Meant(f"; did you mean {near}?", near, value) if near else _Meant()
    if error.kind is ErrorKind.UNSUPPORTED:
        near = _nearest(str(value), schema.get("enum", []))
        return _Meant(f"; did you mean {near}?", key, near) if near else _Meant()
    if error.kind is ErrorKind.TYPE:
        return _of_type(key, value, schema.get("type"))
    return _Meant()


def _of_type(key: str | int, value: Any, expected: str | None) -> _Meant:
    number = _number(value)
    if expected in ("number", "integer") and number is not None:
        whole = number.is_integer() and abs(number) < _LARGEST
        if expected == "integer" and not whole:
            return _Meant("; give a whole number")
        return _written(key, int(number) if whole else number)
    if expected == "string" and isinstance(value, str | bool | int | float):
        return _written(key, json.dumps(value))
    if expected == "boolean" and str(value).lower() in ("true", "false"):
        return _written(key, str(value).lower() == "true")
    return _Meant(
        {
            "number": "; give a number, without quotes",
            "integer": "; give a whole number, without quotes",
            "boolean": "; give true or false, without quotes",
            "object": "; give it fields of its own, as in {name: value}",
            "array": "; give a list, as in [value]",
        }.get(expected or "", "")
    )


def _written(key: str | int, value: Any) -> _Meant:
    shown = json.dumps(value)
    return _Meant(f"; write {shown if isinstance(key, int) else f'{key}: {shown}'}", key, value)


def _number(value: Any) -> float | None:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was likely meant: letters count, not their case, hyphens and underscores."""
    plain = {re.sub(r"[-_]", "", each).lower(): each for each in words}
    near = difflib.get_close_matches(re.sub(r"[-_]", "", word).lower(), plain, 1)
    return plain[near[0]] if near else None
