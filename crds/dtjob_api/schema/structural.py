"""A structural schema, evaluated as the API server does before any CEL.

Strict decoding, pruning of nulls, defaults, and the validation of types, enums and bounds, each
error worded as Kubernetes words it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from jsonschema import Draft4Validator
from jsonschema.exceptions import ValidationError

from dtjob_api.model import Json

INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE = "x-kubernetes-preserve-unknown-fields"


class ErrorKind(StrEnum):
    """The API server's kinds of field errors, by the reason that it returns."""

    INVALID = "FieldValueInvalid"
    TYPE = "FieldValueTypeInvalid"
    REQUIRED = "FieldValueRequired"
    UNSUPPORTED = "FieldValueNotSupported"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    DUPLICATE = "FieldValueDuplicate"
    FORBIDDEN = "FieldValueForbidden"
    UNKNOWN_FIELD = "UnknownField"


BLOCKING = frozenset(
    {
        ErrorKind.TYPE,
        ErrorKind.REQUIRED,
        ErrorKind.UNSUPPORTED,
        ErrorKind.TOO_LONG,
        ErrorKind.TOO_MANY,
    }
)
"""Kinds of errors after which the API server evaluates no CEL."""


@dataclass(frozen=True)
class FieldError:
    """One mistake in a manifest; as text, what the API server says."""

    field: str
    message: str
    kind: ErrorKind = ErrorKind.INVALID

    def __str__(self) -> str:
        if self.kind is ErrorKind.UNKNOWN_FIELD:
            return self.message
        return f"{self.field}: {self.message}"


def child_path(path: str, key: str | int) -> str:
    """`spec.env[0].name` of `spec.env[0]` and `name`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def go_value(value: Any) -> str:
    """A scalar as Go's `%#v` prints it; the API server shows invalid values so."""
    if not isinstance(value, float):
        return json.dumps(value, ensure_ascii=False)
    shortest = Decimal(repr(value)).normalize()
    if value == 0 or -4 <= shortest.adjusted() < 6:
        return f"{shortest:f}"
    mantissa, exponent = f"{shortest:e}".split("e")
    return f"{mantissa}e{int(exponent):+03d}"


def unknown_fields(value: Any, schema: Json, path: str = "") -> list[FieldError]:
    """Fields that the schema does not know, as strict decoding refuses them."""
    return sorted(_unknown_fields(value, schema, path), key=str)


def _unknown_fields(value: Any, schema: Json, path: str) -> Iterator[FieldError]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_fields(item, schema.get("items", {}), child_path(path, index))
    if not isinstance(value, dict) or schema.get(PRESERVE):
        return
    known = schema.get("properties", {})
    for key, child in value.items():
        here = child_path(path, key)
        if key in known:
            yield from _unknown_fields(child, known[key], here)
        elif "additionalProperties" in schema:
            yield from _unknown_fields(child, schema["additionalProperties"], here)
        else:
            yield FieldError(here, f'unknown field "{here}"', ErrorKind.UNKNOWN_FIELD)


def defaulted(value: Any, schema: Json) -> Any:
    """The value with the schema's defaults in place of what is missing or null."""
    if isinstance(value, list):
        return [defaulted(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict) or schema.get(PRESERVE):
        return value
    known: Json = schema.get("properties", {})
    others: Json = schema.get("additionalProperties", {})
    result = {}
    for key, child in value.items():
        if child is None and key in known:
            continue
        result[key] = defaulted(child, known.get(key, others))
    for key, child_schema in known.items():
        if key not in result and "default" in child_schema:
            result[key] = defaulted(child_schema["default"], child_schema)
    return result


def schema_errors(value: Any, schema: Json) -> list[FieldError]:
    """What is wrong with a defaulted value by type, enum, bounds and required fields."""
    validator = Draft4Validator(_as_draft_4(schema))
    errors = [_worded(error) for error in validator.iter_errors(value)]
    return [error for group in errors for error in group] + list(_duplicates(value, schema, ""))


def _as_draft_4(schema: Json) -> Json:
    """The same schema to jsonschema; structural schemas follow draft 4 but for one keyword."""
    result = dict(schema)
    if schema.get(INT_OR_STRING):
        result["type"] = ["integer", "string"]
    if "properties" in schema:
        children = schema["properties"].items()
        result["properties"] = {name: _as_draft_4(child) for name, child in children}
    for key in ("items", "additionalProperties"):
        if key in schema:
            result[key] = _as_draft_4(schema[key])
    return result


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", float: "number"}
    return "null" if value is None else names.get(type(value), "integer")


def _worded(error: ValidationError) -> list[FieldError]:
    path = ""
    for key in error.absolute_path:
        path = child_path(path, key)
    value: Any = error.instance
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            expected = ",".join(limit) if isinstance(limit, list) else limit
            found = _json_type(value)
            message = (
                f'Invalid value: "{found}": {path} in body must be of type {expected}: "{found}"'
            )
            return [FieldError(path, message, ErrorKind.TYPE)]
        case "required":
            # jsonschema reports each missing field by itself, naming it in the message alone.
            missing = re.match(r"'(.*)' is a required property", error.message)
            name = missing[1] if missing else ""
            return [FieldError(child_path(path, name), "Required value", ErrorKind.REQUIRED)]
        case "enum":
            supported = ", ".join(go_value(choice) for choice in limit)
            message = f"Unsupported value: {go_value(value)}: supported values: {supported}"
            return [FieldError(path, message, ErrorKind.UNSUPPORTED)]
        case "maxLength":
            message = f"Too long: may not be more than {limit} bytes"
            return [FieldError(path, message, ErrorKind.TOO_LONG)]
        case "maxItems" | "maxProperties":
            message = f"Too many: {len(value)}: must have at most {limit} items"
            return [FieldError(path, message, ErrorKind.TOO_MANY)]
    return [FieldError(path, f"Invalid value: {_bound(path, error)}")]


def _bound(path: str, error: ValidationError) -> str:
    limit, value = error.validator_value, go_value(error.instance)
    schema: Any = error.schema
    match error.validator:
        case "minLength":
            return f"{value}: {path} in body should be at least {limit} chars long"
        case "minItems":
            items: Any = error.instance
            return f"{len(items)}: {path} in body should have at least {limit} items"
        case "minimum":
            words = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
            return f"{value}: {path} in body should be {words} {go_value(limit)}"
        case "maximum":
            words = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
            return f"{value}: {path} in body should be {words} {go_value(limit)}"
    return f"{value}: {error.message}"


def _duplicates(value: Any, schema: Json, path: str) -> Iterator[FieldError]:
    """Elements of a keyed list that share their keys."""
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        seen: list[Json] = []
        for index, item in enumerate(value):
            if keys and isinstance(item, dict) and all(key in item for key in keys):
                identity = {key: item[key] for key in keys}
                if identity in seen:
                    shown = json.dumps(identity, ensure_ascii=False, separators=(",", ":"))
                    here = child_path(path, index)
                    yield FieldError(here, f"Duplicate value: {shown}", ErrorKind.DUPLICATE)
                seen.append(identity)
            yield from _duplicates(item, schema.get("items", {}), child_path(path, index))
    elif isinstance(value, dict):
        known = schema.get("properties", {})
        for key, child in value.items():
            yield from _duplicates(child, known.get(key, {}), child_path(path, key))
