"""Python's own modules come first, whatever files lie beside a task.

Python looks into the working folder and into `PYTHONPATH` before its own library, so that a
`random.py` there would be what `tempfile` imports. Here the library comes first, in this
process and in those that it starts. Of the library this imports only what every interpreter has
loaded by then: any other import could be such a file.
"""

from __future__ import annotations

import os
import sys

_PYTHONPATH = "PYTHONPATH"


def apply() -> None:
    """Put the library first in this process, and in every Python that it starts.

    Those are started with `-P`, which keeps their working folder out. Programs that are not
    dtjob's get the environment of `given`: another Python must not find this one's library.
    """
    library = _library()
    sys.path[:] = [*library, *(entry for entry in sys.path if entry not in library)]
    os.environ[_PYTHONPATH] = os.pathsep.join([*library, *user_path(os.environ)])


def given(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return `environment` as it was before `apply`."""
    before = {name: value for name, value in environment.items() if name != _PYTHONPATH}
    path = user_path(environment)
    return {**before, _PYTHONPATH: os.pathsep.join(path)} if path else before


def user_path(environment: os._Environ[str] | dict[str, str]) -> list[str]:
    """Return the folders of the user's own `PYTHONPATH`."""
    library = set(_library())
    entries = environment.get(_PYTHONPATH, "").split(os.pathsep)
    return [entry for entry in entries if entry and entry not in library]


def admit_working_folder() -> None:
    """Let modules be imported from the working folder: after the library, before all others.

    For the process that imports a task, once it has imported what is dtjob's own.
    """
    library, folder = _library(), os.getcwd()
    others = [entry for entry in sys.path if entry not in (*library, folder)]
    sys.path[:] = [*library, folder, *others]
    environment = given(os.environ)
    os.environ.pop(_PYTHONPATH, None)
    os.environ.update(environment)


def hidden(module: str) -> str | None:
    """Return a file or package that another module of that name has kept from being imported."""
    loaded = sys.modules.get(module)
    if loaded is None and module not in sys.stdlib_module_names:
        return None
    taken, library = getattr(loaded, "__file__", None), _library()
    for folder in (os.getcwd(), *(entry for entry in sys.path if entry not in library)):
        for path in (f"{module}.py", os.path.join(module, "__init__.py")):
            own = os.path.join(folder, path)
            if os.path.isfile(own) and os.path.realpath(own) != os.path.realpath(taken or ""):
                return own
    return None


def _library() -> list[str]:
    folder = os.path.dirname(os.__file__)
    version = os.path.basename(folder)
    return [
        folder,
        os.path.join(sys.base_exec_prefix, sys.platlibdir, version, "lib-dynload"),
    ]
