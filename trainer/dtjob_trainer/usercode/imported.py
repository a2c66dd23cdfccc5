"""Whose code is imported: of Python and of packages that are installed, dtjob's, or a user's."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

#: The top-level names of dtjob's code.
OUR_PACKAGES = frozenset(
    f"dtjob_{part}"
    for part in ("accounting", "api", "cli", "exporter", "operator", "serving", "trainer")
)


def libraries() -> set[Path]:
    """The folders of what nobody wrote for a task."""
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return {Path(sysconfig.get_path(name)) for name in names}


def others() -> list[Path]:
    """The folder of each package, and the file of each lone module, that is neither's.

    A task may import what lies elsewhere than beside it. What it has not imported yet isn't known.
    """
    installed = libraries()
    found = set()
    for name, module in list(sys.modules.items()):
        top = sys.modules.get(name.partition(".")[0], module)
        file = getattr(module, "__file__", None)
        if file is None or name.partition(".")[0] in OUR_PACKAGES:
            continue
        of_package = getattr(top, "__file__", None) if hasattr(top, "__path__") else None
        place = Path(of_package).parent if of_package is not None else Path(file)
        if not any(place.is_relative_to(each) for each in installed) and place.exists():
            found.add(place)
    return sorted(found)
