"""What others have added to a child's spec is known, and becomes the operator's own."""

from __future__ import annotations

from typing import Any

import pytest

from dtjob_operator.kube.ownership import others_of_spec, taken_over
from dtjob_operator.terms.names import FIELD_MANAGER

WORKER = 'k:{"name":"worker"}'


def containers(fields: dict[str, Any]) -> dict[str, Any]:
    """A spec of which only the worker's container has fields."""
    return {"f:template": {"f:spec": {"f:containers": {WORKER: fields}}}}


SPEC: dict[str, Any] = {"f:replicas": {}, **containers({})}
ENV = containers({"f:env": {".": {}}})


def entry(manager: str, spec: dict[str, Any], operation: str = "Update", **more: Any) -> Any:
    fields = {"f:spec": spec} if spec else {"f:metadata": {"f:labels": {"f:team": {}}}}
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        **more,
    }


def stored(*entries: Any) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}}


@pytest.mark.parametrize(
    ("entries", "others"),
    [
        ([], []),
        ([entry(FIELD_MANAGER, SPEC)], []),
        ([entry(FIELD_MANAGER, SPEC), entry("kubectl-label", {})], []),
        ([entry(FIELD_MANAGER, SPEC, "Apply"), entry("hand", {"f:replicas": {}})], []),
        ([entry(FIELD_MANAGER, SPEC, "Apply"), entry("hand", {"f:ordinals": {}})], ["hand"]),
        (
            [entry(FIELD_MANAGER, SPEC), entry("kubectl-edit", {**SPEC, "f:x": {}})],
            ["kubectl-edit"],
        ),
        ([entry("kubectl", {"f:replicas": {}}, subresource="scale")], []),
        ([entry("b", {"f:b": {}}), entry("a", {"f:a": {}})], ["a", "b"]),
        # What an element is in a list is known by its own fields.
        ([entry(FIELD_MANAGER, ENV), entry("x", {"f:template": {".": {}}})], []),
    ],
)
def test_who_else_has_set_something_is_named(entries: list[Any], others: list[str]) -> None:
    assert others_of_spec(stored(*entries)) == others


def test_what_others_added_is_applied_by_us_and_the_rest_stays_theirs() -> None:
    labelled = entry("team", {})
    edited = entry("hand", {"f:ordinals": {"f:start": {}}})
    edited["fieldsV1"]["f:metadata"] = {"f:annotations": {"f:note": {}}}
    status = entry("controller", {"f:replicas": {}}, subresource="status")
    found = taken_over(
        stored(entry(FIELD_MANAGER, SPEC), labelled, edited, status), "apps/v1", with_spec=True
    )
    assert found is not None
    *rest, ours = found
    assert rest == [
        labelled,
        edited | {"fieldsV1": {"f:metadata": {"f:annotations": {"f:note": {}}}}},
        status,
    ]
    assert (ours["manager"], ours["operation"]) == (FIELD_MANAGER, "Apply")
    assert ours["fieldsV1"] == {"f:spec": {**SPEC, "f:ordinals": {"f:start": {}}}}
    assert taken_over(stored(*found), "apps/v1", with_spec=True) is None, "no write at rest"


def test_where_the_spec_is_not_ours_alone_that_of_others_stays() -> None:
    restored = entry("kubectl-create", {"f:plan": {}})
    assert taken_over(stored(restored), "dtjob.dev/v1", with_spec=False) is None
    found = taken_over(stored(restored, entry(FIELD_MANAGER, SPEC)), "v1", with_spec=False)
    assert found is not None
    assert found[0] == restored


def test_updates_and_applies_of_ours_are_one() -> None:
    found = taken_over(
        stored(entry(FIELD_MANAGER, SPEC), entry(FIELD_MANAGER, ENV, "Apply")),
        "apps/v1",
        with_spec=True,
    )
    assert found is not None
    (ours,) = found
    assert ours["fieldsV1"]["f:spec"] == {**SPEC, **ENV}
