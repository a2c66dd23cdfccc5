"""Whose code is imported: of Python and of packages that are installed, dtjob's, or a user's."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterator, Sequence
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


def packages(places: Sequence[Path]) -> dict[str, str]:
    """The installed packages that code imports by name: versions by names of distributions.

    Parameters
    ----------
    places
        Folders and files of the code. Of it all modules that are loaded are read, so that what
        they import within functions, once these are called, is found too.
    """
    names = {
        name
        for path in _files(places)
        for name in _names_in(path)
        if name not in OUR_PACKAGES and name not in sys.stdlib_module_names
    }
    owners = importlib.metadata.packages_distributions() if names else {}
    found = {owner for name in names for owner in owners.get(name, ())}
    return {owner: importlib.metadata.version(owner) for owner in sorted(found)}


def _files(places: Sequence[Path]) -> set[Path]:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = {Path(file) for file in files if file is not None and file.endswith(".py")}
    return {path for path in paths if any(path.is_relative_to(place) for place in places)}


def _names_in(path: Path) -> Iterator[str]:
    """The top-level names of all that a file imports but by relative names."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.partition(".")[0]
