"""Whether a stored object still is what was applied, in spite of the API server's additions."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

_SUFFIXES = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}
_QUANTITY_MAPS = frozenset({"requests", "limits", "target"})
_QUANTITIES = frozenset({"sizeLimit", "tolerance"})
# Server-side apply merges these lists by a key of their elements, so that others may add to them;
# every other list is taken whole.
_LIST_KEYS = {
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
    "ports": "name",
    "volumeClaimTemplates": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
# These are replaced as a whole, too: what another adds to a selector or a rule changes its meaning.
_WHOLE = frozenset({"selector", "podSelector", "ingress", "egress"})


def has_drifted(stored: Any, wanted: Any) -> bool:
    """Whether applying `wanted` would change `stored`.

    Additions by the API server (defaults, bookkeeping) and by others are no drift; quantities
    are compared by value, since the API server rewrites `1024Mi` as `1Gi`; a field that is empty
    or false may be left out, as the API server does.
    """
    return not _covers(stored, wanted, "")


def _covers(stored: Any, wanted: Any, field: str) -> bool:
    if field in _WHOLE:
        return bool(stored == wanted)
    if isinstance(wanted, dict):
        if not isinstance(stored, dict):
            return False
        return all(
            _covers(stored[key], value, "quantity" if field in _QUANTITY_MAPS else key)
            if key in stored
            else _is_empty(value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(stored, list) and _covers_list(stored, wanted, field)
    if field == "quantity" or field in _QUANTITIES:
        return quantity(stored) == quantity(wanted)
    return bool(stored == wanted)


def _covers_list(stored: list[Any], wanted: list[Any], field: str) -> bool:
    key = _LIST_KEYS.get(field)
    if key is None:
        return len(stored) == len(wanted) and all(
            _covers(one, other, "") for one, other in zip(stored, wanted, strict=True)
        )
    by_key = {_key(element, key): element for element in stored}
    return all(
        _key(element, key) in by_key and _covers(by_key[_key(element, key)], element, "")
        for element in wanted
    )


def _key(element: Any, key: str) -> Any:
    """The element's own key; claim templates keep theirs in their metadata."""
    return element.get(key, element.get("metadata", {}).get(key))


def _is_empty(value: Any) -> bool:
    return (not value and value != 0) or value is False


def quantity(text: Any) -> Decimal | Any:
    """The value of a resource quantity; what isn't one is itself."""
    text = str(text)
    for suffix in (text[-2:], text[-1:]):
        if suffix in _SUFFIXES:
            number, factor = text[: -len(suffix)], _SUFFIXES[suffix]
            break
    else:
        number, factor = text, Decimal(1)
    try:
        return Decimal(number) * factor
    except InvalidOperation:
        return text
