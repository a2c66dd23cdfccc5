"""The CustomResourceDefinitions, generated from the models.

    python -m dtjob_api.schema.crd           writes crds/*.yaml
    python -m dtjob_api.schema.crd --check   fails where the committed YAML is another

pydantic's JSON schema becomes a structural OpenAPI v3.0 schema, as apiextensions.k8s.io/v1 asks:
references inlined, `null` alternatives dropped (a missing field is how Kubernetes writes null),
numeric exclusive bounds in the boolean form, unknown fields pruned instead of refused.
"""

from __future__ import annotations

import argparse
import io
import sys
from functools import cache
from pathlib import Path
from typing import Any

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.ledger_rules import LEDGER_RULES
from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.model import API_GROUP, VALIDATIONS, Json, Model

VERSION = "v1alpha1"
CRD_DIRECTORY = Path(__file__).resolve().parents[2]

_DROPPED = {"title", "$defs", "propertyNames", "discriminator"}
_INT_OR_STRING = "x-kubernetes-int-or-string"


def structural_schema(model: type[Model]) -> Json:
    """The structural schema of a whole resource."""
    generated = model.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(generated, generated.get("$defs", {}))
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        # The name is spelled out so that a rule can report it; the API server checks the rest.
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
    schema["required"] = ["spec"]
    return schema


def _structural(schema: Json, definitions: Json) -> Json:
    schema = _inlined(schema, definitions)
    result: Json = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _structural(child, definitions) for name, child in value.items()}
        elif key == "items":
            result[key] = _structural(value, definitions)
        elif key == "additionalProperties":
            if isinstance(value, dict):
                result[key] = _structural(value, definitions)
        elif key == "const":
            result["enum"] = [value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            result[key.replace("exclusiveM", "m")] = value
            result[key] = True
        elif key == "default":
            if value is not None:
                result[key] = value
        elif key not in _DROPPED:
            result[key] = value
    if "default" in result and "properties" in result:
        # Spelled out, because the API server evaluates CEL on a default before it fills it.
        result["default"] = {
            name: child["default"]
            for name, child in result["properties"].items()
            if "default" in child
        }
    if result.get(_INT_OR_STRING):
        # The keyword stands for the union; spelled out, each mistake is reported thrice.
        result.pop("type", None)
        result.pop("anyOf", None)
    return result


def _inlined(schema: Json, definitions: Json) -> Json:
    """The schema without `$ref` and `null` alternatives; outer keywords win over inner ones."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        outer = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined(target | outer, definitions)
    if "anyOf" in schema and _INT_OR_STRING not in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise TypeError(f"no structural schema for a union: {schema}")
        outer = {key: value for key, value in schema.items() if key != "anyOf"}
        return _inlined(options[0] | outer, definitions)
    return schema


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> Json:
    column: Json = {"name": name, "type": kind, "jsonPath": path}
    return column | {"priority": 1} if wide else column


_AGE = _column("Age", ".metadata.creationTimestamp", "date")


def _definition(
    model: type[Model],
    *,
    plural: str,
    short_names: list[str],
    columns: list[Json],
    labels: Json | None = None,
    **version: Any,
) -> Json:
    kind = model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{API_GROUP}",
            "labels": {"app.kubernetes.io/name": "dtjob", "app.kubernetes.io/part-of": "dtjob"}
            | (labels or {}),
        },
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short_names,
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} | version,
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": structural_schema(model)},
                }
            ],
        },
    }


@cache
def job_crd() -> Json:
    """The CustomResourceDefinition of DistributedTrainingJob."""
    return _definition(
        DistributedTrainingJob,
        plural="distributedtrainingjobs",
        short_names=["dtjobs", "dtjob", "dtj"],
        columns=[
            _column("Phase", ".status.phase"),
            _column("Reason", ".status.display.reason"),
            _column("Ready", ".status.display.ready"),
            _column("Progress", ".status.display.progress"),
            _column("Epsilon", ".status.display.epsilon"),
            _column("GPU", ".status.display.gpu"),
            _column("ETA", ".status.display.eta"),
            _column("Restarts", ".status.restarts", "integer"),
            _AGE,
            _column("Samples/s", ".status.progress.samplesPerSecond", wide=True),
            _column("Memory", ".status.display.memory", wide=True),
            _column("Checkpoint", ".status.checkpoint.step", "integer", wide=True),
            _column("Duration", ".status.display.duration", wide=True),
            _column("Finished", ".status.completionTime", "date", wide=True),
        ],
        scale={
            "specReplicasPath": ".spec.workers.replicas",
            "statusReplicasPath": ".status.workers.replicas",
            "labelSelectorPath": ".status.workers.selector",
        },
    )


@cache
def ledger_crd() -> Json:
    """The CustomResourceDefinition of PrivacyLedger."""
    definition = _definition(
        PrivacyLedger,
        plural="privacyledgers",
        short_names=["pledger"],
        # What stays when the operator is removed and the ledgers are not.
        labels={"app.kubernetes.io/component": "ledgers"},
        columns=[
            _column("Job", ".spec.jobName"),
            _column("Attempt", ".status.attempt", "integer"),
            _column("Charged", ".status.charged", "integer"),
            _column("Reserved", ".spec.reservedDraws", "integer"),
            _column("Checkpoint", ".status.checkpoint.step", "integer"),
            _column("Outcome", ".status.outcome.state"),
            _AGE,
        ],
    )
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for each in LEDGER_RULES:
        node = schema
        for name in each.within.split(".") if each.within else ():
            node = node["properties"][name]
        # With sorted keys, as pydantic has them of the other models.
        node.setdefault(VALIDATIONS, []).append(dict(sorted(each.validation().items())))
    return definition


def rendered(crd: Json) -> str:
    """The YAML text of a CustomResourceDefinition."""
    from ruamel.yaml import YAML  # noqa: PLC0415  (the models' importers do without it)

    yaml = YAML()
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=2, offset=0)
    yaml.representer.ignore_aliases = lambda _data: True
    stream = io.StringIO()
    stream.write("# Generated from the models in dtjob_api by `python -m dtjob_api.schema.crd`.\n")
    yaml.dump(crd, stream)
    return stream.getvalue()


def files() -> dict[str, str]:
    """File name and text of each committed CustomResourceDefinition."""
    return {
        f"{API_GROUP}_{crd['spec']['names']['plural']}.yaml": rendered(crd)
        for crd in (job_crd(), ledger_crd())
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the YAML, or compare it with what is committed."""
    parser = argparse.ArgumentParser(prog="python -m dtjob_api.schema.crd", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--directory", type=Path, default=CRD_DIRECTORY)
    options = parser.parse_args(arguments)
    stale = []
    for name, text in files().items():
        path = options.directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if options.check and stale:
        sys.stderr.write(
            f"{', '.join(stale)}: not what the models say; run python -m dtjob_api.schema.crd\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
