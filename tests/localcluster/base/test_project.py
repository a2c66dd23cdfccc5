"""One file says which project the clusters are for."""

from __future__ import annotations

from pathlib import Path

import localcluster
from localcluster.base import project

PACKAGE = Path(localcluster.__file__).parent
KNOWING = {Path(project.__file__), PACKAGE / "__main__.py"}


def test_no_other_file_names_the_project() -> None:
    naming = {path for path in PACKAGE.rglob("*.py") if project.NAME in path.read_text().casefold()}
    assert naming == KNOWING
