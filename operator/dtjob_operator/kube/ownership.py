"""Who set which fields of an object, by its managedFields (server-side apply).

What others add to the spec of a child is no drift of what the operator applies, and an apply takes
away only what its own last one set. So such fields are made the operator's own first.
"""

from __future__ import annotations

from typing import Any

from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.names import FIELD_MANAGER

_SPEC = "f:spec"


def others_of_spec(obj: Json) -> list[str]:
    """Managers of fields in an object's spec that the operator has not set."""
    entries = _entries(obj)
    others = [each for each in entries if not _is_ours(each) and _spec_fields(each)]
    if not others:
        return []  # as at almost every version of an object
    own: dict[str, Any] = {}
    for each in filter(_is_ours, entries):
        _merge(own, _spec_fields(each))
    return sorted({each["manager"] for each in others if _has_more(_spec_fields(each), own)})


def taken_over(obj: Json, api_version: str, *, with_spec: bool) -> list[Json] | None:
    """The entries by which all that the operator wrote counts as applied; None where they are so.

    Server-side apply removes what its own last one set, and a creation is an update to it.

    Parameters
    ----------
    with_spec
        Whether all that others set in the spec is to be the operator's, too.
    """
    entries = _entries(obj)
    to_take = with_spec and others_of_spec(obj)
    if not to_take and not any(map(_is_own_update, entries)):
        return None
    applied: Json = {
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": {},
    }
    left: list[Json] = []
    for each in entries:
        if _is_ours(each):
            applied |= {k: v for k, v in each.items() if k not in ("operation", "fieldsV1")}
            _merge(applied["fieldsV1"], each.get("fieldsV1") or {})
        elif to_take and (fields := _spec_fields(each)):
            _merge(applied["fieldsV1"].setdefault(_SPEC, {}), fields)
            rest = {k: v for k, v in each["fieldsV1"].items() if k != _SPEC}
            left += [each | {"fieldsV1": rest}] if rest else []
        else:
            left.append(each)
    return [*left, applied]


def _entries(obj: Json) -> list[Json]:
    return obj["metadata"].get("managedFields") or []


def _is_ours(entry: Json) -> bool:
    return entry["manager"] == FIELD_MANAGER and not entry.get("subresource")


def _is_own_update(entry: Json) -> bool:
    return _is_ours(entry) and entry["operation"] == "Update"


def _spec_fields(entry: Json) -> Json:
    """The fields of the spec that an entry names; those of a subresource are its own business."""
    if entry.get("subresource"):
        return {}
    fields: Json = (entry.get("fieldsV1") or {}).get(_SPEC) or {}
    return fields


def _merge(into: Json, fields: Json) -> None:
    for key, below in fields.items():
        _merge(into.setdefault(key, {}), below)


def _has_more(fields: Json, known: Json) -> bool:
    """Whether there is a field that is not known; `.` stands for the element that it is in."""
    return any(
        key not in known or _has_more(below, known[key])
        for key, below in fields.items()
        if key != "."
    )
