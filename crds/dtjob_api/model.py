"""What every dtjob resource model is made of: naming, strictness, CEL rules, common types.

A model is the one source of a resource's shape. Its CEL rules stand beside the fields they
constrain, as plain data in the model's JSON schema; `dtjob_api.schema.crd` carries them into the
CustomResourceDefinition and `dtjob_api.schema.validation` evaluates them offline. Those of a ledger
are a table of their own, `dtjob_api.ledger.ledger_rules`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

API_GROUP = "dtjob.dev"
API_VERSION: Literal["dtjob.dev/v1alpha1"] = "dtjob.dev/v1alpha1"

VALIDATIONS = "x-kubernetes-validations"

Json = dict[str, Any]


def _kubernetes_name(field: str) -> str:
    """`job_uid` is spelled `jobUID` in Kubernetes, everything else plain camelCase."""
    name = to_camel(field)
    return name[:-3] + "UID" if name.endswith("Uid") else name


class Model(BaseModel):
    """An immutable, closed object: snake_case in Python, camelCase in JSON."""

    model_config = ConfigDict(
        alias_generator=_kubernetes_name,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    def to_dict(self) -> Json:
        """The object as Kubernetes writes it: camelCase keys, JSON values, no nulls."""
        return self.model_dump(mode="json", exclude_none=True)


class ObjectMeta(Model):
    """The part of an object's metadata that dtjob reads; the rest is dropped on reading."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


def timestamp(moment: datetime) -> str:
    """A moment as metav1.Time has it: whole seconds, UTC."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def first_error(error: ValidationError) -> str:
    """Field and message of the first thing that is wrong with an object."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def rule(
    expression: str,
    message: str,
    *,
    field: str | None = None,
    reason: Literal["FieldValueRequired", "FieldValueForbidden"] | None = None,
) -> Json:
    """One CEL validation rule.

    Parameters
    ----------
    expression
        CEL that is true of a valid value; `self` is the value, `oldSelf` the stored one.
    message
        What is wrong and the remedy; the API server puts the field and the value before it.
    field
        Path below `self` to report, such as `.batchSize`, where a child is what is wrong.
    reason
        Words the error as a missing or a forbidden field instead of an invalid value.
    """
    written: Json = {"rule": expression, "message": message}
    if field is not None:
        written["fieldPath"] = field
    if reason is not None:
        written["reason"] = reason
    return written


def rules(*validations: Json, **keywords: Any) -> Json:
    """`json_schema_extra` of a field or model: CEL rules and further schema keywords."""
    return {VALIDATIONS: list(validations), **keywords}


def list_map(*keys: str) -> Json:
    """`json_schema_extra` of a list whose elements are told apart by their keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


FreeForm = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]
"""An object whose fields are the user's own."""

ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            rule(
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
                "must be an object's name: lower-case letters, digits, and inner hyphens and dots",
            )
        ),
    ),
]
"""The name of another Kubernetes object."""

MAX_QUANTITY = 64
"""Characters of a quantity."""

_INT_OR_STRING: Json = {"x-kubernetes-int-or-string": True, "maxLength": MAX_QUANTITY}
NOT_NEGATIVE = "must be a quantity that is not negative, such as 500m, 2 or 1.5Gi"


def not_negative(value: str) -> str:
    """The rule that an expression is such a quantity, where there may be many.

    Kubernetes before 1.34 takes each for as long as a request may be, whatever maxLength says: a
    rule may read 31 of them. So each is read once, and its type is looked for in a list, since to
    compare it would count as reading it.
    """
    return (
        f"(type({value}) in [int] ? {value} >= 0 : isQuantity({value}) && !{value}.startsWith('-'))"
    )


BareQuantity = Annotated[int | str, Field(json_schema_extra=_INT_OR_STRING)]
"""A quantity whose rule stands elsewhere."""

Quantity = Annotated[
    int | str,
    Field(json_schema_extra=rules(rule(not_negative("self"), NOT_NEGATIVE), **_INT_OR_STRING)),
]
"""A Kubernetes resource quantity, such as `500m` or `2Gi`."""

Image = Annotated[str, Field(min_length=1, max_length=1024)]
"""A container image reference."""
