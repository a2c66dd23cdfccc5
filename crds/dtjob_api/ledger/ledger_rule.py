"""A rule of ledgers in its two forms: CEL for the API server, Python for who has no API server.

The table is in `ledger_rules`. To hold a ledger against all of it takes 8 ms in CEL, 0.1 in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from dtjob_api.ledger.privacy_ledger import LedgerSpec, LedgerStatus, PrivacyLedger
from dtjob_api.model import Json, rule

Permits = Callable[[PrivacyLedger, PrivacyLedger], bool]
"""Whether a stored ledger and the next keep a rule. A rule on one version looks at the next."""

STATUS = "!has(self.status)"
STATUSES = "!has(oldSelf.status) || !has(self.status)"
"""How the CEL begins of a rule on a status, or on its changes."""

_FIELD = re.compile(r"\b(?:spec|status)(?:\.[A-Za-z]+)+")


@dataclass(frozen=True)
class LedgerRule:
    """What is true of each version of a ledger, or of each change.

    Attributes
    ----------
    name
        Stable and unique.
    contract
        The rule of the privacy contract that it keeps (docs/design/rules.md).
    field
        Path of what is wrong where the rule is broken.
    cel
        The rule in CEL; `self` is the object at `within`.
    permits
        The same in Python, of whole ledgers.
    message
        What is wrong, in the words of the API server and of everybody else.
    within
        Path of the object at which the CEL stands. Rules on changes stand at the root: where an
        object is removed, a rule that stands at it is not evaluated.
    """

    name: str
    contract: int
    field: str
    cel: str
    permits: Permits
    message: str
    within: str = ""

    @property
    def is_on_changes(self) -> bool:
        """Whether it compares a version with the one before."""
        return "oldSelf" in self.cel

    def validation(self) -> Json:
        """Return the rule as the schema of the object at `within` has it."""
        below = self.field.removeprefix(f"{self.within}.")
        return rule(self.cel, self.message, field=f".{below}")

    def breach(self, old: PrivacyLedger | None, new: PrivacyLedger) -> str:
        """Return the message, with the counts in the fields of which it speaks."""
        before = old.to_dict() if old is not None and self.is_on_changes else {}
        fields = [self.field, *_FIELD.findall(self.message)]
        counts = ", ".join(_counts(fields, before, new.to_dict()))
        message = f"{self.field} {self.message}" if self.within else self.message
        return f"{message} ({counts})" if counts else message


def _counts(fields: list[str], before: Json, after: Json) -> Iterator[str]:
    for field in dict.fromkeys(fields):
        was, now = _at(before, field), _at(after, field)
        if isinstance(was, int) and was != now:
            yield f"{field} from {was} to {'none' if now is None else now}"
        elif isinstance(now, int):
            yield f"{field} is {now}"


def _at(value: Any, path: str) -> Any:
    def child(value: Any, key: str) -> Any:
        return value.get(key) if isinstance(value, dict) else None

    return reduce(child, path.split("."), value)


def has_status(ledger: PrivacyLedger) -> bool:
    """Return whether the ledger has a status, as all have from the first write on."""
    return "status" in ledger.model_fields_set


def spec_changes(permits: Callable[[LedgerSpec, LedgerSpec], bool]) -> Permits:
    """Return `permits` of the specs before and after."""
    return lambda old, new: permits(old.spec, new.spec)


def status_is(permits: Callable[[LedgerStatus, LedgerSpec], bool]) -> Permits:
    """Return `permits` of a status and its spec; a ledger without a status keeps it."""
    return lambda _, new: not has_status(new) or permits(new.status, new.spec)


def status_changes(permits: Callable[[LedgerStatus, LedgerStatus], bool]) -> Permits:
    """Return `permits` of the statuses before and after; where one is absent it is kept."""
    return lambda old, new: (
        not has_status(old) or not has_status(new) or permits(old.status, new.status)
    )


def never_removed(
    name: str,
    contract: int,
    field: str,
    cel: str,
    permits: Callable[[Any, Any], bool],
    message: str,
) -> LedgerRule:
    """Return the rule that a field of the status, once there, stays, and changes as `permits` says.

    Where the whole status is gone, the rule on status itself says so.

    Parameters
    ----------
    permits
        Of the field's values before and after.
    """
    attribute = next(
        n for n, info in LedgerStatus.model_fields.items() if f"status.{info.alias}" == field
    )

    def stays(old: LedgerStatus, new: LedgerStatus) -> bool:
        before, after = getattr(old, attribute), getattr(new, attribute)
        return before is None or (after is not None and permits(before, after))

    was = f"has(oldSelf.status) && has(oldSelf.{field})"
    return LedgerRule(
        name,
        contract,
        field,
        f"!({was}) || {STATUS} || (has(self.{field}) && ({cel}))",
        status_changes(stays),
        message,
    )
