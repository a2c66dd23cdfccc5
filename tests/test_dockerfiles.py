"""An image holds every package of ours that its packages import, and its build is given them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

DOCKERFILES = ["Dockerfile.operator", "Dockerfile.trainer", "tools/standin/Dockerfile"]
_COPIED = re.compile(r"^COPY (\S+) /opt/dtjob/app/", re.M)
_IMPORTED = re.compile(r"^\s*(?:from|import) (dtjob_\w+)", re.M)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_holds_what_is_imported(dockerfile: str) -> None:
    folders = _COPIED.findall((ROOT / dockerfile).read_text())
    imported = {
        name
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        for name in _IMPORTED.findall(file.read_text())
    }
    assert {Path(folder).name for folder in folders} >= imported != set()
    given = (ROOT / ".dockerignore").read_text().splitlines()
    assert [folder for folder in folders if f"!{folder}" not in given] == []
