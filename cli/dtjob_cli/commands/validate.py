"""`dtjob validate`: check manifests offline, by the API server's rules, with remedies."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dtjob_api.job.arguments import too_large
from dtjob_api.schema.mistakes import mistakes
from dtjob_cli import manifests, standard_streams
from dtjob_cli.errors import BadInput, ExitCode
from dtjob_cli.manifests import Manifest


def validate(files: Sequence[Path], *, as_json: bool) -> ExitCode:
    """Print what is wrong with each file; return whether all are valid.

    Raises
    ------
    CommandError
        If all are, and that can't be printed.
    """
    results = [_result(file) for file in files]
    if as_json:
        sys.stdout.write(json.dumps({"files": results}, indent=2) + "\n")
    else:
        for result in results:
            _print(result)
    if not all(result["valid"] for result in results):
        return ExitCode.BAD_INPUT
    standard_streams.check_printed()
    return ExitCode.OK


def _result(file: Path) -> dict[str, Any]:
    try:
        manifest = manifests.load(file)
        errors = mistakes(manifest) or _of_a_cluster(manifest)
    except BadInput as error:
        errors = [error.message]
    return {"file": str(file), "valid": not errors, "errors": errors}


def _of_a_cluster(manifest: Manifest) -> list[str]:
    """What the API server takes and the operator refuses; a run on this machine takes it too."""
    args = manifest["spec"].get("training", {}).get("args") or {}
    return [why] if (why := too_large(args)) is not None else []


def _print(result: dict[str, Any]) -> None:
    if result["valid"]:
        sys.stdout.write(f"{result['file']}: valid\n")
        return
    sys.stderr.write(f"{result['file']}: invalid\n")
    for error in result["errors"]:
        sys.stderr.write(f"  {error}\n")
