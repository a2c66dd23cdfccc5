"""docs/design/map.md names files that exist, and every wing there is."""

from __future__ import annotations

import re

import pytest

from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "design" / "map.md"
CHAPTERS = re.findall(r"^## .*?`([\w/]+)`\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize(("package", "text"), CHAPTERS, ids=[package for package, _ in CHAPTERS])
def test_files_and_wings_are_those_that_exist(package: str, text: str) -> None:
    folder = ROOT / package
    files = re.findall(r"`([\w/]+\.py)`", text)
    assert files
    assert [file for file in files if not (folder / file).is_file()] == []
    wings = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert wings == set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M))
