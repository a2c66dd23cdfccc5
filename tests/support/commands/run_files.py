"""What docs/quickstart.md says that a run leaves."""

from __future__ import annotations

import re

from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "quickstart.md"


def documented() -> set[str]:
    """The files and folders of its list."""
    listed = PAGE.read_text().partition("## What a run leaves")[2].split("```")[1]
    return set(re.findall(r"^  ([\w.]+)/?  ", listed, re.M))
