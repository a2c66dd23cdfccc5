"""Entrypoints, and what may be shown of their failures (Rule 20)."""

import importlib
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dtjob_api.reasons import Reason
from dtjob_trainer import task
from dtjob_trainer.task import ArraySpec, TaskError, load_task, shown_in_full, task_code_place

GOOD = """
    from dtjob_trainer.task import ArraySpec, Task
    SPEC = {"x": ArraySpec((2,), "float32", 0, 1)}
    def task(args):
        return Task(lambda: args, lambda: [], SPEC, lambda m, b: None)
    number = 3
    def raises(args):
        raise KeyError("rate")
    def nothing(args):
        pass
    def no_spec(args):
        return Task(print, print, {}, print)
    def bad_spec(args):
        return Task(print, print, {"x": (2,)}, print)
    def bad_model(args):
        return Task(None, print, SPEC, print)
    def bad_evaluate(args):
        return Task(print, print, SPEC, print, evaluate=3)
    def bad_range(args):
        return Task(print, print, {"x": ArraySpec((2,), "float32", 0, float("inf"))}, print)
    class Tasks:
        linear = staticmethod(task)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """A folder on the path, for modules that are forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    yield write
    for name in set(sys.modules) - before:
        # Not what they import: numpy can't be loaded twice.
        if str(tmp_path) in str(getattr(sys.modules[name], "__path__", sys.modules[name])):
            del sys.modules[name]


@pytest.mark.parametrize("entrypoint", ["random:task", "json.tasks:task"])
def test_a_task_with_the_name_of_a_library_module_is_reported_so(entrypoint):
    top = entrypoint.partition(":")[0].partition(".")[0]
    with pytest.raises(TaskError) as caught:
        load_task(entrypoint, {})
    assert caught.value.reason is Reason.ENTRYPOINT_INVALID
    assert f"{top} is a module of Python's standard library" in caught.value.message
    assert f"{top}_task" in caught.value.message


@pytest.mark.parametrize(
    "wanting", ["from queue import Records", "import queue; queue.Records", "import queue"]
)
def test_a_task_that_wants_a_hidden_file_names_it(code, monkeypatch, tmp_path, wanting):
    monkeypatch.chdir(tmp_path)
    hidden = code("queue.py", "Records = []")
    code("wants.py", f"{wanting}\ndef task(args):\n    queue.Records")
    with pytest.raises(TaskError) as caught:
        load_task("wants:task", {})
    assert f"{hidden} is not imported" in caught.value.message
    assert "Python's standard library: rename the file" in caught.value.message


def test_a_task_is_called_with_a_copy_of_the_manifests_arguments(code):
    code("good_task.py", GOOD)
    arguments = {"depth": 3}
    found: object = load_task("good_task:task", arguments).model()
    assert found == arguments
    assert found is not arguments
    linear: object = load_task("good_task:Tasks.linear", {}).model()
    assert linear == {}


@pytest.mark.parametrize(
    ("entrypoint", "reason", "words"),
    [
        ("good_task", "EntrypointInvalid", "package.module:callable"),
        (":task", "EntrypointInvalid", "package.module:callable"),
        ("no_such_module_at_all:task", "EntrypointInvalid", "check the spelling"),
        ("dtjob_trainer.no_such:task", "EntrypointInvalid", "dtjob_trainer.no_such"),
        ("imports_missing:task", "EntrypointInvalid", "install no_such_library"),
        ("fails_to_import:task", "EntrypointInvalid", "1 / 0"),
        ("fails_to_parse:task", "EntrypointInvalid", "SyntaxError"),
        ("good_task:tsak", "EntrypointInvalid", "bad_evaluate, bad_model"),
        ("good_task:number", "EntrypointInvalid", "is a int, not a callable"),
        ("good_task:raises", "EntrypointInvalid", "KeyError: 'rate'"),
        ("good_task:nothing", "TaskInvalid", "returned a NoneType"),
        ("good_task:no_spec", "TaskInvalid", "example_spec"),
        ("good_task:bad_spec", "TaskInvalid", "ArraySpec(shape, dtype, low, high)"),
        ("good_task:bad_model", "TaskInvalid", "Task.model"),
        ("good_task:bad_evaluate", "TaskInvalid", "Task.evaluate"),
        ("good_task:bad_range", "EntrypointInvalid", "must be finite"),
    ],
)
def test_a_bad_entrypoint_is_refused_with_a_remedy_and_no_traceback_of_ours(
    code, entrypoint, reason, words
):
    code("good_task.py", GOOD)
    code("imports_missing.py", "import no_such_library")
    code("fails_to_import.py", "x = 1 / 0")
    code("fails_to_parse.py", "def task(:")
    with pytest.raises(TaskError) as caught:
        load_task(entrypoint, {})
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "in load_task" not in caught.value.message
    assert "importlib" not in caught.value.message


def test_a_module_that_is_not_found_is_reported_with_every_folder_that_was_searched(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/opt/tasks")
    with pytest.raises(TaskError) as caught:
        load_task("pics:task", {})
    assert f"the working folder, {tmp_path}," in caught.value.message
    assert "PYTHONPATH, which is /opt/tasks" in caught.value.message
    assert "call it in the folder of the module" in caught.value.message


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("pics:task", "installed in the image (spec.image)"),
        ("wants_pics:task", "install pics in the image (spec.image)"),
    ],
)
def test_a_module_that_is_not_found_in_a_pod_has_to_come_into_its_image(code, entrypoint, words):
    code("wants_pics.py", "import pics")
    with pytest.raises(TaskError) as caught:
        load_task(entrypoint, {}, in_pod=True)
    assert words in caught.value.message
    assert "dtjob run" not in caught.value.message


def test_an_entrypoint_that_looks_for_data_which_there_are_none_is_reported_so(code, monkeypatch):
    monkeypatch.delenv("DTJOB_DATA_DIR", raising=False)
    code("needy.py", "import os\ndef task(args): return os.environ['DTJOB_DATA_DIR']")
    with pytest.raises(TaskError, match="set it in a new job"):
        load_task("needy:task", {})


def test_what_the_dry_run_met_and_its_traceback_are_two_sentences():
    """Where newlines are shown as blanks they would run into one another."""
    message = shown_in_full("the dry run failed", failure(lambda _: 1 / 0), "Correct it")
    assert "Correct it.\nTraceback (most recent call last)" in message


def test_loading_a_task_imports_no_torch():
    program = (
        "import sys; from dtjob_trainer.task import load_task; "
        "from dtjob_trainer.mechanism import keys, noise, prf; "
        "from dtjob_trainer.mechanism.records import sampling, scatter; "
        "load_task('dtjob_trainer.tasks.digits:task', {}); "
        "sys.exit(bool({'torch', 'opacus', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


SECRET = "patient-4711"

FAILING = f"""
    import numpy as np
    def read(index):
        return helper({{"name": "{SECRET}"}})
    def helper(record):
        raise ValueError("cannot decode " + record["name"])
    def library(index):
        np.zeros(3) @ np.zeros(4)
"""


def failure(call):
    try:
        call(0)
    except Exception as error:
        return error
    raise AssertionError


@pytest.mark.rule(20)
def test_a_private_failure_tells_class_and_deepest_line_of_task_code(code):
    code("clinic/__init__.py", "")
    code("clinic/data/__init__.py", "")
    path = code("clinic/data/reader.py", FAILING)
    code(
        "clinic/train.py", "from clinic.data.reader import read, library\n" + textwrap.dedent(GOOD)
    )
    load_task("clinic.train:task", {})
    module = sys.modules["clinic.data.reader"]
    error = failure(module.read)
    line = 1 + path.read_text().splitlines().index(
        '    raise ValueError("cannot decode " + record["name"])'
    )
    assert task_code_place(error, "clinic.train:task") == f"clinic/data/reader.py:{line}"
    inside_numpy = failure(module.library)
    assert task_code_place(inside_numpy, "clinic.train:task") == "clinic/data/reader.py:8"
    assert SECRET in str(error)
    assert SECRET not in str(task_code_place(error, "clinic.train:task"))


@pytest.mark.rule(20)
def test_a_lone_module_is_its_own_task_code(code):
    code("lone.py", textwrap.dedent(GOOD) + textwrap.dedent(FAILING))
    load_task("lone:task", {})
    place = task_code_place(failure(sys.modules["lone"].read), "lone:task")
    assert place is not None
    assert place.endswith("lone.py:" + place.rpartition(":")[2])


@pytest.mark.rule(20)
@pytest.mark.parametrize("beside", [True, False], ids=["beside dtjob", "in site-packages"])
def test_a_lone_installed_module_does_not_adopt_its_neighbours(tmp_path, monkeypatch, beside):
    """What lies beside it there is dtjob, torch and numpy: none of it is the task's."""
    folder = tmp_path / "installed"
    folder.mkdir()
    library = "def fail(call=None):\n    if call: call()\n    raise ValueError\n"
    (folder / "library.py").write_text(library)
    (folder / "lonely.py").write_text(textwrap.dedent(GOOD) + textwrap.dedent(FAILING))
    if beside:
        monkeypatch.setattr(task, "__file__", str(folder / "dtjob_trainer" / "task.py"))
    else:
        monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(folder))
    monkeypatch.syspath_prepend(folder)
    load_task("lonely:task", {})
    module = importlib.import_module("library")
    assert task_code_place(failure(lambda _: module.fail()), "lonely:task") is None
    read = sys.modules["lonely"].read
    through = failure(lambda _: module.fail(lambda: read(0)))
    assert str(task_code_place(through, "lonely:task")).startswith("lonely.py:")
    for name in ("lonely", "library"):
        sys.modules.pop(name)


@pytest.mark.rule(20)
def test_code_of_ours_is_no_task_code(tmp_path, monkeypatch):
    here = tmp_path / "site"
    monkeypatch.setattr(task, "__file__", str(here / "dtjob_trainer" / "task.py"))
    ours = ["dtjob_trainer/rank/rank.py", "dtjob_accounting/rdp.py", "dtjob_api/model.py"]
    others = ["dtjob_trainer/tasks/digits.py", "lonely.py", "torch/nn.py", "dtjob_clinic/task.py"]
    assert all(task._is_ours(str(here / name)) for name in ours)
    assert not any(task._is_ours(str(here / name)) for name in others)


@pytest.mark.rule(20)
def test_failures_outside_task_code_have_no_place():
    load_task("dtjob_trainer.tasks.digits:task", {})
    error = failure(lambda _: ArraySpec((1,), "float32", 1, 0))
    assert task_code_place(error, "dtjob_trainer.tasks.digits:task") is None
    assert task_code_place(error, "never.imported:task") is None
    assert (
        task_code_place(
            failure(lambda _: load_task("dtjob_trainer.tasks.digits:task", {"a": 1})),
            "dtjob_trainer.tasks.digits:task",
        )
        is None
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((0,), "float32", 0, 1), "at least 1"),
        ((("a",), "float32", 0, 1), "integers"),
        (((2,), "float16", 0, 1), "dtype 'float16' must be one of float32, float64"),
        (((2,), "float32", 2, 1), "low <= high"),
        (((2,), "uint8", 0, 256), "exceeds uint8"),
        (((2,), "int8", -129, 0), "exceeds int8"),
        (((2,), "float32", 0, 1e39), "exceeds float32"),
        (((2,), "bool", 0, 2), "exceeds bool"),
        (((2,), "float32", float("nan"), 1), "finite"),
    ],
)
def test_bad_array_specs(arguments, words):
    with pytest.raises(ValueError, match=words):
        ArraySpec(*arguments)
