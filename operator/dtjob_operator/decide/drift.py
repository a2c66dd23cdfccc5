"""Whether a stored object still is what was applied, in spite of the API server's additions."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from dtjob_operator.terms.kinds import SPEC_SET_BY, Json

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
    """Whether applying `wanted` would change `stored`: see `drift`."""
    return drift(stored, wanted) is not None


def drift(stored: Any, wanted: Any) -> str | None:
    """The first field in which applying `wanted` would change `stored`; None where it would not.

    Additions by the API server (defaults, bookkeeping) are no drift, nor are those of others to
    metadata; quantities are compared by value, since the API server rewrites `1024Mi` as `1Gi`; a
    field that is empty or false may be left out, as the API server does.
    """
    path = next(_differences(stored, wanted, ""), None)
    return None if path is None else ".".join(path)


def differs(stored: Json, wanted: Json) -> bool:
    """Whether a stored child is not what is wanted, by its drift or by what others have added."""
    return has_drifted(stored, wanted) or additions(stored, wanted) is not None


def additions(stored: Json, wanted: Json) -> str | None:
    """Who has set what is not wanted in the spec of a stored child; None where nobody has.

    Where a template stays as it is while its pods run, so does what was added to it.
    """
    if not (others := stored.get(SPEC_SET_BY)):
        return None
    template = wanted["spec"].get("template")
    stays = template is not None and template is stored["spec"].get("template")
    return None if stays else ", ".join(others)


Path = tuple[str, ...]


def _differences(stored: Any, wanted: Any, field: str) -> Iterator[Path]:
    if field in _WHOLE:
        if stored != wanted:
            yield ()
    elif isinstance(wanted, dict):
        if not isinstance(stored, dict):
            yield ()
            return
        for key, value in wanted.items():
            if key in stored:
                below = "quantity" if field in _QUANTITY_MAPS else key
                for path in _differences(stored[key], value, below):
                    yield (key, *path)
            elif not _is_empty(value):
                yield (key,)
    elif isinstance(wanted, list):
        yield from _differences_of_lists(stored, wanted, field)
    elif field == "quantity" or field in _QUANTITIES:
        if quantity(stored) != quantity(wanted):
            yield ()
    elif stored != wanted:
        yield ()


def _differences_of_lists(stored: Any, wanted: list[Any], field: str) -> Iterator[Path]:
    key = _LIST_KEYS.get(field)
    if not isinstance(stored, list) or (key is None and len(stored) != len(wanted)):
        yield ()
        return
    if key is None:
        for number, (one, other) in enumerate(zip(stored, wanted, strict=True)):
            for path in _differences(one, other, ""):
                yield (str(number), *path)
        return
    by_key = {_key(element, key): element for element in stored}
    for element in wanted:
        name = _key(element, key)
        found = _differences(by_key[name], element, "") if name in by_key else [()]
        for path in found:
            yield (str(name), *path)


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
