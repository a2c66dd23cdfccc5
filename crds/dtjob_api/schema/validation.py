"""Validating a manifest without a cluster, by the rules and in the words of the API server.

What is evaluated is the generated CustomResourceDefinition, in the API server's order: strict
decoding, defaults, structural schema, and, where nothing of that makes it pointless, CEL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from dtjob_api.model import VALIDATIONS, Json
from dtjob_api.schema.cel import CelError, is_true
from dtjob_api.schema.crd import job_crd, ledger_crd
from dtjob_api.schema.structural import (
    BLOCKING,
    PRESERVE,
    ErrorKind,
    FieldError,
    child_path,
    defaulted,
    go_value,
    schema_errors,
    unknown_fields,
)

__all__ = [
    "NOT_CHECKED",
    "ErrorKind",
    "FieldError",
    "apply_defaults",
    "checkable",
    "crd_of",
    "strict_schema",
    "validate",
]

_TRANSITION = re.compile(r"\boldSelf\b")
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_SUBDOMAIN}')"
)
_METADATA_FIELDS = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_TEXTS = ("name", "generateName", "namespace", "uid", "resourceVersion")
_MAPS_OF_TEXT = ("labels", "annotations")
_RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
_TIMES = ("creationTimestamp", "deletionTimestamp")
NOT_CHECKED = FieldError(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
"""The last of several errors where some of them kept the API server from evaluating rules."""
_GENERATED_SUFFIX = "x" * 5
"""Stands for the letters that the API server appends to metadata.generateName."""


def validate(manifest: Json, crd: Json | None = None, old: Json | None = None) -> list[FieldError]:
    """Everything that the API server would refuse in a manifest.

    Parameters
    ----------
    manifest
        The object as it was read; it may lack what has defaults.
    crd
        The CustomResourceDefinition to hold it against, by default the one of its kind.
    old
        The stored object that the manifest would replace, for the rules on changes. Without it
        the object is created, and its status is ignored, as the API server does.

    Returns
    -------
    list of FieldError
        Empty for a valid manifest. Two errors differ from the API server's: a number like `336.0`
        in an integer field is a wrong type here, where the server fails to evaluate the rules of
        the field; and of the metadata only types and the name are checked, types in
        words of our own, since kubectl or the server's decoder refuses them before any schema.
    """
    crd = crd or crd_of(manifest)
    if crd is None:
        return _unknown_kind(manifest)
    schema = _schema(crd)
    wrong = _metadata_type_errors(manifest)
    manifest = _as_json(manifest)
    unknown = unknown_fields(manifest, strict_schema(crd))
    if unknown:
        return wrong + unknown
    if old is None:
        manifest.pop("status", None)
    if wrong:
        others = schema_errors(defaulted(manifest, schema), schema)
        others = [error for error in others if error.field.split(".")[0] != "metadata"]
        return [*wrong, *others, NOT_CHECKED]
    manifest = defaulted(_named(manifest), schema)
    errors = _name_errors(manifest) + schema_errors(manifest, schema)
    if any(error.kind in BLOCKING for error in errors):
        return [*errors, NOT_CHECKED]
    stored = None if old is None else _typed(defaulted(_as_json(old), schema), schema)
    return errors + list(_rule_errors(_typed(manifest, schema), schema, stored, ""))


def checkable(manifest: Json, blocked: Collection[str], crd: Json) -> list[FieldError]:
    """Return what breaks the rules of the parts of a manifest that hold no `blocked` field.

    The API server evaluates none where one field is blocked: a rule may read any of its part.
    """
    schema = _schema(crd)
    value = _typed(defaulted(_as_json(manifest), schema), schema)
    return list(_rule_errors(value, schema, None, "", blocked))


def strict_schema(crd: Json) -> Json:
    """The schema of all fields that strict decoding knows, those of the metadata among them."""
    metadata = {"properties": {key: {PRESERVE: True} for key in _METADATA_FIELDS}}
    return {"properties": _schema(crd)["properties"] | {"metadata": metadata}}


def apply_defaults(manifest: Json, crd: Json | None = None) -> Json:
    """The manifest as the API server would store it: defaults in it, nulls of metadata dropped."""
    crd = crd or crd_of(manifest)
    if crd is None:
        raise ValueError("; ".join(str(error) for error in _unknown_kind(manifest)))
    result: Json = defaulted(manifest, _schema(crd))
    metadata = {
        key: value for key, value in (result.get("metadata") or {}).items() if value is not None
    }
    return result | {"metadata": metadata}


def crd_of(manifest: Json) -> Json | None:
    """The CustomResourceDefinition of a manifest's kind, if it is one of ours."""
    for crd in (job_crd(), ledger_crd()):
        spec = crd["spec"]
        version = f"{spec['group']}/{spec['versions'][0]['name']}"
        if (manifest.get("apiVersion"), manifest.get("kind")) == (version, spec["names"]["kind"]):
            return crd
    return None


def _unknown_kind(manifest: Json) -> list[FieldError]:
    given = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    return [
        FieldError(
            "kind",
            f'Unsupported value: "{given}": supported values: '
            '"dtjob.dev/v1alpha1 DistributedTrainingJob", "dtjob.dev/v1alpha1 PrivacyLedger"',
            ErrorKind.UNSUPPORTED,
        )
    ]


def _schema(crd: Json) -> Json:
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _as_json(value: Any) -> Any:
    """A copy in which integers beyond 64 bits are what a JSON decoder makes of them."""
    if isinstance(value, dict):
        return {key: _as_json(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value


def _named(manifest: Json) -> Json:
    metadata = manifest.get("metadata") or {}
    if metadata.get("name") or not metadata.get("generateName"):
        return manifest
    name = metadata["generateName"] + _GENERATED_SUFFIX
    return manifest | {"metadata": metadata | {"name": name}}


def _metadata_type_errors(manifest: Json) -> list[FieldError]:
    """What of the metadata has a type that no ObjectMeta has; everything else reads it unasked.

    Null counts as absent, as it does to the API server, but not as a value of a map.
    """
    metadata = manifest.get("metadata")
    if metadata is None:
        return []
    if not isinstance(metadata, dict):
        return [_wrong_type("metadata", metadata, "must be a mapping, such as {name: my-job}")]
    errors = []
    for key in _TEXTS:
        errors += _not_text(f"metadata.{key}", metadata.get(key, ""), null=True)
    for key in _MAPS_OF_TEXT:
        texts = {} if metadata.get(key) is None else metadata[key]
        if not isinstance(texts, dict):
            errors.append(_wrong_type(f"metadata.{key}", texts, "must be a mapping of strings"))
            continue
        for name, text in texts.items():
            errors += _not_text(f"metadata.{key}.{name}", text, null=False)
    for key in _TIMES:
        if not _is_time(metadata.get(key)):
            remedy = "must be a time such as 2026-01-02T03:04:05Z, or left out"
            errors.append(_wrong_type(f"metadata.{key}", metadata[key], remedy))
    generation = metadata.get("generation")
    if generation is not None and (isinstance(generation, bool) or not isinstance(generation, int)):
        errors.append(_wrong_type("metadata.generation", generation, "must be a whole number"))
    return errors


def _not_text(field: str, value: Any, *, null: bool) -> list[FieldError]:
    if isinstance(value, str) or (null and value is None):
        return []
    quotable = isinstance(value, bool | int | float)
    remedy = "must be a string; write it in quotes" if quotable else "must be a string"
    return [_wrong_type(field, value, remedy)]


def _is_time(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, str) or not re.fullmatch(_RFC_3339, value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _wrong_type(field: str, value: Any, remedy: str) -> FieldError:
    # As it was read, not as Go prints it: whoever wrote 1.0 looks for 1.0.
    shown = json.dumps(value, ensure_ascii=False)
    return FieldError(field, f"Invalid value: {shown}: {remedy}", ErrorKind.TYPE)


def _name_errors(manifest: Json) -> list[FieldError]:
    name = (manifest.get("metadata") or {}).get("name")
    if not name:
        message = "Required value: name or generateName is required"
        return [FieldError("metadata.name", message, ErrorKind.REQUIRED)]
    if not re.fullmatch(_SUBDOMAIN, name):
        return [
            FieldError("metadata.name", f"Invalid value: {go_value(name)}: {_SUBDOMAIN_MESSAGE}")
        ]
    return []


def _typed(value: Any, schema: Json) -> Any:
    """The value as CEL sees it: every number of a `number` field is a double."""
    if isinstance(value, dict):
        if schema.get(PRESERVE):
            return value
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        return {key: _typed(child, known.get(key, others)) for key, child in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    if schema.get("type") == "number" and isinstance(value, int):
        return float(value)
    return value


def _rule_errors(
    value: Any, schema: Json, old: Any, path: str, blocked: Collection[str] = ()
) -> Iterator[FieldError]:
    at = (f"{path}.", f"{path}[")
    whole = not any(not path or f"{field}.".startswith(at) for field in blocked)
    for rule in schema.get(VALIDATIONS, []) if whole else []:
        if old is not None or not _TRANSITION.search(rule["rule"]):
            yield from _broken(rule, value, old, path)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for key, child in value.items():
            before = old.get(key) if isinstance(old, dict) else None
            if key in known:
                yield from _rule_errors(child, known[key], before, child_path(path, key), blocked)
            elif "additionalProperties" in schema:
                others = schema["additionalProperties"]
                yield from _rule_errors(child, others, before, f"{path}[{key}]", blocked)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            here = child_path(path, index)
            yield from _rule_errors(item, schema.get("items", {}), None, here, blocked)


def _broken(rule: Json, value: Any, old: Any, path: str) -> Iterator[FieldError]:
    field = (path + rule.get("fieldPath", "")).lstrip(".") or "<nil>"
    message = rule["message"]
    try:
        if is_true(rule["rule"], value, old):
            return
    except CelError as error:
        yield FieldError(field, f"Invalid value: {error} evaluating rule: {message}")
        return
    reason = ErrorKind(rule.get("reason", ErrorKind.INVALID))
    if reason is ErrorKind.REQUIRED:
        yield FieldError(field, f"Required value: {message}", reason)
    elif reason is ErrorKind.FORBIDDEN:
        yield FieldError(field, f"Forbidden: {message}", reason)
    elif isinstance(value, dict | list):
        yield FieldError(field, f"Invalid value: {message}")
    else:
        yield FieldError(field, f"Invalid value: {go_value(value)}: {message}")
