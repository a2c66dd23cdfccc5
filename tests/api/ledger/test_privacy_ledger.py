"""A ledger in a file is as strict about each field as the API server's schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.schema.crd import ledger_crd
from dtjob_api.schema.structural import defaulted, schema_errors
from tests.support.rules.attempt_attacks import ended, running
from tests.support.rules.stored_ledgers import CHECKPOINT, FINISHED, TIME
from tests.support.rules.transitions import REMOVED, Json, edited

SCHEMA: Json = ledger_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
WHOLE = PrivacyLedger.from_dict(
    edited(
        FINISHED,
        {
            "spec.content": {"format": 1, "sha256": "0" * 64},
            "spec.run.time": TIME,
            "spec.run.insteadOf": 4,
            "spec.runPolicy.rules": [
                {"causes": ["Stalled"], "exitCodes": [3], "signals": [9], "action": "Fail"}
            ],
            "status.volume": {"attempt": 4, "leased": 3, "charged": 60, "checkpoint": CHECKPOINT},
            "status.restored": 2,
            "status.lease.closedAt": 24,
            "status.initialModelDigest": "sha256:" + "0" * 64,
            "status.attempts": [
                ended(1)
                | {"generation": 1, "workers": 2}
                | {"signal": 9, "ignored": True, "hold": {"generation": 1, "stallSeconds": 600}},
                running(2),
            ],
        },
    )
).to_dict()
"""A ledger that has every field."""

Path = tuple[str | int, ...]
VALUES: list[Any] = [
    *(-1, 0, 1, 2, 2**31, 2**31 + 1, 10**9, 10**9 + 1, 2 * 10**9, 2 * 10**9 + 1, 2**63),
    *(0.5, 1.0, 1.5, True, "", "5", "x" * 63, "x" * 64, "x" * 65, "x" * 2000, [], {}, [{}] * 65),
]


def fields(value: Any, schema: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every field of a ledger and its schema; of lists, those of the first element."""
    if path:
        yield path, schema
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            assert name in value, f"{path} lacks {name}"
            yield from fields(value[name], child, (*path, name))
    elif isinstance(value, list):
        yield from fields(value[0], schema["items"], (*path, 0))


FIELDS = {
    ".".join(map(str, path)): (path, schema)
    for part in ("spec", "status")
    for path, schema in fields(WHOLE[part], SCHEMA["properties"][part], (part,))
}


def with_value(path: Path, value: Any) -> Json:
    ledger = copy.deepcopy(WHOLE)
    parent: Any = ledger
    for key in path[:-1]:
        parent = parent[key]
    if value is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return ledger


def is_refused(ledger: Json) -> bool:
    try:
        PrivacyLedger.from_json(json.dumps(ledger))
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_is_refused_where_the_schema_refuses_it(field: str) -> None:
    path, schema = FIELDS[field]
    for value in VALUES:
        if isinstance(value, str) and schema.get("format") == "date-time":
            continue  # the schema of the tests doesn't look into it
        alone = {"type": "object", "properties": {"at": schema}}
        by_schema = bool(schema_errors({"at": value}, alone))
        assert is_refused(with_value(path, value)) == by_schema, value


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_gone_is_refused_where_the_schema_requires_it(field: str) -> None:
    path, _ = FIELDS[field]
    changed = with_value(path, REMOVED)
    by_schema = bool(schema_errors(defaulted(changed, SCHEMA), SCHEMA))
    assert is_refused(changed) == by_schema


def test_the_whole_ledger_is_one() -> None:
    assert not is_refused(WHOLE)
    assert len(FIELDS) > 60


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05", "2026-01-02", "noon", ""])
def test_a_time_has_a_date_and_a_zone(time: str) -> None:
    assert is_refused(with_value(("status", "outcome", "time"), time))
