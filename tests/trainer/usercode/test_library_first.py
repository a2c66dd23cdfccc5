"""Files beside a task that have the name of a module of Python's own library."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from dtjob_trainer.usercode import library_first

pytestmark = pytest.mark.slow  # an interpreter for each

# What a person may well call a file of their own, and what supervisors, ranks and commands import.
NAMES = (
    "argparse",
    "asyncio",
    "calendar",
    "code",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "enum",
    "errno",
    "functools",
    "json",
    "logging",
    "math",
    "multiprocessing",
    "numbers",
    "operator",
    "pathlib",
    "pickle",
    "platform",
    "profile",
    "queue",
    "random",
    "reprlib",
    "runpy",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "statistics",
    "string",
    "struct",
    "tempfile",
    "test",
    "threading",
    "time",
    "token",
    "tokenize",
    "types",
    "typing",
    "uuid",
    "warnings",
)
# Python itself imports these to run a module, before a line of the module is run.
EARLY = {"collections", "contextlib", "functools", "operator", "reprlib", "types", "warnings"}
SPOILT = "raise SystemExit(f'{__file__} was imported')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(SPOILT)
    return tmp_path


def python(*arguments: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_supervisor_starts_beside_files_with_the_librarys_names(folder: Path) -> None:
    assert "--position" in python("-P", "-m", "dtjob_trainer.supervisor", "-h", cwd=folder)


def test_a_supervisor_starts_with_such_files_on_the_path(folder: Path) -> None:
    for name in EARLY:
        (folder / f"{name}.py").unlink()
    arguments = ("-P", "-m", "dtjob_trainer.supervisor", "-h")
    assert "--position" in python(*arguments, cwd=folder, PYTHONPATH=str(folder))


@pytest.mark.parametrize("path", [".", ""], ids=["on the path", "beside"])
def test_a_command_starts_with_such_files(folder: Path, path: str) -> None:
    program = str(Path(sysconfig.get_path("scripts")) / "dtjob")
    assert "dtjob" in python(program, "--version", cwd=folder, PYTHONPATH=path)


APPLIED = (
    "from dtjob_trainer.usercode import library_first; library_first.apply(); import os, sys; "
)


def test_whom_this_process_starts_has_the_library_first_too(folder: Path) -> None:
    child = "import random, secrets, queue; print(random.__file__)"
    program = f"import subprocess; subprocess.run([sys.executable, '-P', '-c', '{child}'])"
    shown = python("-P", "-c", APPLIED + program, cwd=folder, PYTHONPATH=str(folder))
    assert Path(shown.strip()) == Path(os.__file__).with_name("random.py")


def test_the_users_path_still_comes_before_what_is_installed(folder: Path) -> None:
    (folder / "numpy.py").write_text("mine = True\n")
    program = "import numpy; print(numpy.mine)"
    shown = python("-P", "-c", APPLIED + program, cwd=folder, PYTHONPATH=str(folder))
    assert shown.strip() == "True"


def test_a_task_imports_from_its_folder_what_is_not_the_librarys(folder: Path) -> None:
    (folder / "helpers.py").write_text("mine = True\n")
    program = (
        "library_first.admit_working_folder(); import helpers, random; print(helpers.mine, "
        "random.random() < 1, os.environ.get('PYTHONPATH'))"
    )
    assert python("-P", "-c", APPLIED + program, cwd=folder).split()[:2] == ["True", "True"]


@pytest.mark.parametrize("before", [None, "/one", "/one:/two"])
def test_other_programs_get_the_users_environment(before: str | None) -> None:
    mine = {"HOME": "/home/ann"} | ({"PYTHONPATH": before} if before else {})
    library = os.pathsep.join(library_first._library())
    applied = {**mine, "PYTHONPATH": f"{library}:{before}" if before else library}

    assert library_first.given(applied) == mine
    assert library_first.given(mine) == mine


def test_applied_twice_is_applied_once(folder: Path) -> None:
    program = "one = list(sys.path), os.environ['PYTHONPATH']; library_first.apply(); "
    program += "print(one == (sys.path, os.environ['PYTHONPATH']))"
    shown = python("-P", "-c", APPLIED + program, cwd=folder, PYTHONPATH=str(folder))
    assert shown.strip() == "True"


def test_a_file_that_another_module_hides_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert library_first.hidden("random") == str(folder / "random.py")
    assert library_first.hidden("pytest") is None

    for name in ("pytest.py", "mine.py"):
        (folder / name).touch()
    assert library_first.hidden("pytest") == str(folder / "pytest.py")
    assert library_first.hidden("mine") is None
