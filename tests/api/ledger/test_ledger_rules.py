"""Each rule of a ledger says the same in CEL and in Python, and refuses what no other does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dtjob_api.ledger.ledger_rule import LedgerRule
from dtjob_api.ledger.ledger_rules import LEDGER_RULES, breaches, broken
from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.schema.validation import validate
from testing.examples import examples
from tests.support.checkout import ROOT
from tests.support.rules.attempt_attacks import full, next_attempt, with_attempts
from tests.support.rules.ledger_attacks import BAD_LEDGERS, LEDGER_CHANGES, SERIES
from tests.support.rules.stored_ledgers import (
    CHECKPOINT,
    CLOSED,
    FINISHED,
    FOUND,
    LEDGER,
    NEXT_LEASE,
    RAISED,
    SETTLED,
    STARTED,
    segments,
)
from tests.support.rules.transitions import REMOVED, Json, edited

Write = tuple[Json | None, Json]
"""What is stored, if anything is, and what is written over it."""

WRITES: dict[str, Write] = {
    **{change.name: (change.stored, change.changed) for change in LEDGER_CHANGES},
    **{
        f"{attack}, write {number}": (stored, edited(stored, changes))
        for attack, (stored, writes) in SERIES.items()
        for number, changes in enumerate(writes, 1)
    },
    **{case.name: (None, case.manifest) for case in BAD_LEDGERS},
}


def refused_in_cel(stored: Json | None, written: Json) -> set[str] | None:
    """Names of the rules by which the API server refuses it; None where its schema already does."""
    names = set()
    for error in validate(written, old=stored):
        found = [rule.name for rule in LEDGER_RULES if _is_of(str(error), rule)]
        if not found:
            return None
        names.update(found)
    return names


def _is_of(error: str, rule: LedgerRule) -> bool:
    return error == f"{rule.field}: Invalid value: {rule.message}"


def refused_in_python(stored: Json | None, written: Json) -> set[str] | None:
    """The same by who evaluates the rules himself; None where it is no ledger for the models."""
    try:
        new = PrivacyLedger.from_dict(written)
    except ValidationError:
        return None
    old = None if stored is None else PrivacyLedger.from_dict(stored)
    return {rule.name for rule in broken(old, new)}


@pytest.mark.rule(2, 5, 9, 10, 11, 13, 14, 17, 18)
@pytest.mark.parametrize("write", WRITES)
def test_cel_and_python_refuse_alike(write: str) -> None:
    assert refused_in_python(*WRITES[write]) == refused_in_cel(*WRITES[write])


@pytest.fixture(scope="module")
def refused_alone() -> set[str]:
    verdicts = [refused_in_python(*write) or set() for write in WRITES.values()]
    return {name for names in verdicts if len(names) == 1 for name in names}


@pytest.mark.rule(2, 5, 9, 10, 11, 13, 14, 17, 18)
@pytest.mark.parametrize("rule", LEDGER_RULES, ids=lambda rule: rule.name)
def test_each_rule_refuses_an_attack_that_no_other_refuses(
    rule: LedgerRule, refused_alone: set[str]
) -> None:
    assert rule.name in refused_alone


def test_no_two_rules_have_one_name_or_say_the_same_of_a_field() -> None:
    assert len({rule.name for rule in LEDGER_RULES}) == len(LEDGER_RULES)
    assert len({(rule.field, rule.message) for rule in LEDGER_RULES}) == len(LEDGER_RULES)


def test_the_contract_names_the_rules_that_hold_it() -> None:
    """docs/design/rules.md names `ledger_rules` where a rule of ledgers keeps the contract."""
    page = (ROOT / "docs" / "design" / "rules.md").read_text()
    texts = re.findall(r"^\*\*(\d+)\. (.*?)(?=^\*\*\d|^## |\Z)", page, re.M | re.S)
    named = {int(number) for number, text in texts if "ledger_rules`" in text}
    assert named == {rule.contract for rule in LEDGER_RULES}


def test_a_breach_tells_the_counts_before_and_after() -> None:
    old = PrivacyLedger.from_dict(SETTLED)
    new = PrivacyLedger.from_dict(edited(SETTLED, {"status.charged": 40, **_held(40)}))
    assert breaches(old, new) == [
        "status.charged must not exceed spec.reservedDraws, and spec.reservedDraws must not fall "
        "below it (status.charged is 40, spec.reservedDraws is 30)"
    ]
    assert breaches(new, old)[0].endswith("(status.charged from 40 to 30)")


def test_a_breach_tells_what_is_gone_and_where_it_stands() -> None:
    raised = PrivacyLedger.from_dict(RAISED)
    gone = PrivacyLedger.from_dict(edited(RAISED, {"status.restored": REMOVED}))
    assert breaches(raised, gone) == [
        "status.restored can't be removed and never decreases (status.restored from 2 to none)"
    ]
    outside = PrivacyLedger.from_dict(edited(STARTED, {"status.lease.closedAt": 31}))
    assert breaches(None, outside) == [
        "status.lease.closedAt must lie within the lease (status.lease.closedAt is 31)"
    ]


# On writes nobody thought of


def _held(charged: int) -> Json:
    return {f"status.{field}": value for field, value in segments(charged).items()}


def _optional(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.just(REMOVED) | value


_draws = st.sampled_from([0, 10, 19, 20, 24, 25, 29, 30, 31, 34, 40, 60])
_attempts = st.integers(1, 4)
_steps = st.sampled_from([0, 9, 10, 11, 20, 30])
_leases = st.fixed_dictionaries(
    {"attempt": _attempts, "fromDraw": _draws, "toDraw": _draws, "fromStep": st.sampled_from([10])},
    optional={"closedAt": _draws},
)
_checkpoints = st.fixed_dictionaries({"attempt": _attempts, "step": _steps, "charged": _draws}).map(
    lambda values: CHECKPOINT | values
)
_volumes = st.fixed_dictionaries(
    {"attempt": _attempts, "charged": _draws}, optional={"leased": st.integers(0, 4)}
)
_other_segments = st.builds(
    lambda draws, changes: [{**segments(draws)["segments"][0], **changes}],
    _draws,
    st.sampled_from([{"noiseMultiplier": 3.0}, {"sampleRate": 0.1}, {}]),
)
_status_changes = st.fixed_dictionaries(
    {},
    optional={
        "status.attempt": st.integers(0, 4),
        "status.charged": _draws,
        "status.segments": _optional(_other_segments),
        "status.lease": _optional(_leases),
        "status.checkpoint": _optional(_checkpoints),
        "status.drained": _optional(st.integers(0, 3)),
        "status.restored": _optional(_attempts),
        "status.volume": _optional(_volumes),
        "status.initialModelDigest": _optional(st.sampled_from(["a", "b"])),
        "status.outcome": _optional(
            st.sampled_from([FINISHED["status"]["outcome"], {"state": "Failed"}]).map(
                lambda changes: FINISHED["status"]["outcome"] | changes
            )
        ),
    },
)
_next_leases = st.builds(
    lambda draw, length, extra: {
        "status.charged": draw + length + extra,
        **_held(draw + length + extra),
        "status.lease": NEXT_LEASE | {"fromDraw": draw, "toDraw": draw + length},
    },
    st.sampled_from([23, 24, 25, 29, 30, 31]),
    st.integers(0, 10),
    st.integers(-1, 1),
)
_run_changes = st.fixed_dictionaries(
    {},
    optional={
        "spec.run.generation": st.integers(1, 3),
        "spec.run.workers": st.integers(1, 3),
        "spec.reservedDraws": st.sampled_from([0, 29, 30, 31, 366, 367]),
        "spec.plan.steps": st.sampled_from([9, 336]),
        "spec.plan.noiseMultiplier": _optional(st.sampled_from([2.203, 3])),
    },
)
_statuses = st.sampled_from([LEDGER, STARTED, CLOSED, FOUND, RAISED, FINISHED, SETTLED]).flatmap(
    lambda stored: st.sampled_from(
        [stored, edited(stored, {"status.attempt": 3}) if "status" in stored else stored]
    )
)


@pytest.mark.rule(13)
@settings(max_examples=examples(150), derandomize=True)
@given(stored=_statuses, changes=_status_changes | _next_leases | _run_changes)
def test_each_rule_is_the_same_in_both_forms(stored: Json, changes: dict[str, Any]) -> None:
    written = edited(stored, changes)
    assert refused_in_python(stored, written) == refused_in_cel(stored, written)


@st.composite
def lists_and_writes(draw: st.DrawFn) -> tuple[Json, Json]:
    """A ledger with a list of attempts, and a write that may lose, mend or add entries."""
    orderly = draw(st.sets(st.integers(1, 20), max_size=3))
    records = full(*orderly)[draw(st.sampled_from([0, 0, 1, 17])) :]
    stored = with_attempts(records)
    leaving = draw(st.lists(st.integers(1, 20), max_size=2)) + sorted(orderly)[:1]
    written = next_attempt(records, *draw(st.sampled_from([leaving, leaving[:1], leaving[-1:]])))
    attempts = written["attempts"]
    match draw(st.sampled_from(["", "", "", "reorder", "rewrite", "reopen", "no rise", "twice"])):
        case "reorder":
            attempts = draw(st.permutations(attempts))
        case "rewrite":
            attempts[0] = attempts[0] | {"reason": "Stopped"}
        case "reopen":
            attempts[0] = {k: v for k, v in attempts[0].items() if k != "end"}
        case "no rise":
            written["attempt"] -= 1
        case "twice":
            attempts = [*attempts[1:], attempts[-1]]
    changes = {"status.attempts": attempts, "status.attempt": written["attempt"]}
    return stored, edited(stored, changes)


@settings(max_examples=examples(150), derandomize=True)
@given(change=lists_and_writes())
def test_the_list_of_attempts_is_guarded_alike(change: tuple[Json, Json]) -> None:
    assert refused_in_python(*change) == refused_in_cel(*change)
