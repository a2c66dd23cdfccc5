"""Arguments of a task that no worker can be handed are refused, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dtjob_api.job.arguments import MAX_BYTES, MAX_LEVELS, too_large
from dtjob_api.job.training import Training
from dtjob_api.wire.well_known import CONFIG_VARIABLE

LINUX_TAKES = 128 * 1024
"""Bytes of a variable with its name (MAX_ARG_STRLEN)."""
REST_OF_A_CONFIGURATION = 8 * 1024


def nested(levels: int) -> dict[str, Any]:
    value: Any = 0
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value}
    return {"a": value}


def of_bytes(size: int) -> dict[str, Any]:
    return {"a": "x" * (size - len('{"a":""}'))}


@pytest.mark.parametrize("args", [{}, of_bytes(MAX_BYTES), nested(MAX_LEVELS)])
def test_what_fits_is_taken(args: dict[str, Any]) -> None:
    assert too_large(args) is None
    training = {"entrypoint": "a:b", "steps": 1, "batchSize": 1}
    training["optimizer"] = {"name": "sgd", "learningRate": 1.0}
    text = Training.model_validate(training | {"args": args}).model_dump_json(by_alias=True)
    assert Training.model_validate_json(text).args == args
    handed_over = len(f"{CONFIG_VARIABLE}=") + len(json.dumps(json.loads(text)))
    assert handed_over + REST_OF_A_CONFIGURATION < LINUX_TAKES


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (of_bytes(MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes as JSON, of at most {MAX_BYTES}"),
        ({"a": "\u00e9" * 20_000}, "120008 bytes as JSON"),
        (nested(MAX_LEVELS + 1), f"in {MAX_LEVELS + 1} levels, of at most {MAX_LEVELS}"),
        (nested(5000), "in 5000 levels"),
    ],
)
def test_what_does_not_is_refused_by_field_size_limit_and_remedy(
    args: dict[str, Any], words: str
) -> None:
    why = too_large(args)
    assert why is not None
    assert why.startswith("spec.training.args: ")
    assert words in why
    assert "put it into a file" in why
