"""The manifests in bad/ and good/, each with what the API server says of it.

A bad manifest begins with comments: `# expect: MESSAGE` for each error. The API server also says
that some rules were not checked when a mistake of type, enum or presence makes that so; `expect`
leaves that line out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtjob_api.schema.manifest import load
from tests.support.checkout import ROOT

BAD = ROOT / "tests" / "api" / "bad"
GOOD = ROOT / "tests" / "api" / "good"
EXAMPLES = ROOT / "examples"
EXPECT = "# expect: "
NOT_CHECKED = "some validation rules were not checked"


@dataclass(frozen=True)
class Case:
    """A manifest and the errors that are expected of it."""

    name: str
    manifest: dict[str, Any]
    expected: list[str]


def load_case(path: Path) -> Case:
    lines = path.read_text().splitlines()
    expected = [line.removeprefix(EXPECT) for line in lines if line.startswith(EXPECT)]
    return Case(path.stem, load(path), sorted(expected))


BAD_CASES = [load_case(path) for path in sorted(BAD.glob("*.yaml"))]
JOBS = [path for path in EXAMPLES.glob("*.yaml") if path.name != "kustomization.yaml"]
GOOD_CASES = [load_case(path) for path in sorted([*GOOD.glob("*.yaml"), *JOBS])]


def mistakes(messages: list[str]) -> list[str]:
    """The messages of a refusal without the remark on rules that were not checked."""
    return sorted(message for message in messages if NOT_CHECKED not in message)
