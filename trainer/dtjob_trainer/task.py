"""What a user provides: a model, its private data, a loss for each example.

Nothing here imports torch, so that a bad entrypoint is refused before anything heavy starts.
"""

from __future__ import annotations

import importlib
import math
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from dtjob_api.reasons import Reason
from dtjob_trainer.usercode import data_place, imported, library_first, not_found
from dtjob_trainer.usercode.passing import may_pass

if TYPE_CHECKING:
    import torch

# The dtypes of fields, with the least and the greatest value of each.
DTYPES = {
    "float32": (-(2 - 2.0**-23) * 2.0**127, (2 - 2.0**-23) * 2.0**127),
    "float64": (-sys.float_info.max, sys.float_info.max),
    "bool": (0, 1),
    "uint8": (0, 2**8 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}

# Installed beside this package, and no task's code either.
CORRECT_THE_TASK = "Correct the task, or what Task.example_spec says of its data"


class TaskError(Exception):
    """The task can't be trained as it is.

    Parameters
    ----------
    reason
        Becomes the reason of the job's outcome.
    message
        What is wrong, where, and the remedy. Free of private data.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Records(Protocol):
    """A map-style data set: record i is a mapping from field name to an array-like (Rule 3)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class ArraySpec:
    """One field of an example, by public constants only (Rule 5).

    Parameters
    ----------
    shape
        Shape of one example's array, without the batch; `()` for a scalar such as a label.
    dtype
        One of `DTYPES`; the batch's tensor has it.
    low, high
        Both inclusive and finite. A record with a value outside contributes zero (Rule 20).
        Padding and all synthetic examples are drawn from this range.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not all(isinstance(n, int) and n >= 1 for n in self.shape):
            raise ValueError(f"shape {self.shape!r} must hold integers of at least 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} must be one of {', '.join(DTYPES)}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"range [{self.low}, {self.high}] must be finite with low <= high")
        least, greatest = DTYPES[self.dtype]
        if self.low < least or self.high > greatest:
            raise ValueError(
                f"range [{self.low}, {self.high}] exceeds {self.dtype}'s [{least}, {greatest}]"
            )


@dataclass(frozen=True)
class Task:
    """A training task.

    Parameters
    ----------
    model
        Makes the module, on the CPU, with float32 trainable parameters.
    dataset
        Opens the private records. First called after the dry run.
    example_spec
        The fields of one example.
    losses
        `losses(model, batch) -> Tensor[P]` where `batch` maps each field of `example_spec`
        to a tensor `[P, *shape]`. Entry p depends on example p only (Rule 5).
    evaluate
        `evaluate(model) -> dict[str, float]`: figures on *public* data (Rule 19).
    """

    model: Callable[[], torch.nn.Module]
    dataset: Callable[[], Records]
    example_spec: Mapping[str, ArraySpec]
    losses: Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]
    evaluate: Callable[[torch.nn.Module], Mapping[str, float]] | None = None


def load_task(entrypoint: str, args: Mapping[str, Any], *, in_pod: bool = False) -> Task:
    """Import `package.module:callable` and call it with the manifest's `training.args`.

    Parameters
    ----------
    in_pod
        What is missing has to come into the image.

    Raises
    ------
    TaskError
        The entrypoint doesn't import, isn't callable, raises, or returns no valid Task.
    """
    module_name, separator, name = entrypoint.partition(":")
    if not (separator and module_name and name):
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r} must have the form package.module:callable",
        )
    _check_no_library_module(module_name, entrypoint)
    module = _import(module_name, entrypoint, in_pod)
    target: Any = module
    for part in name.split("."):
        target = getattr(target, part, None)
        if target is None:
            raise TaskError(
                Reason.ENTRYPOINT_INVALID,
                f"spec.training.entrypoint {entrypoint!r}: module {module_name} has no {name!r}; "
                f"it defines {_public_callables(module)}{_other_file(module_name)}",
            )
    if not callable(target):
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r}: {name} is a {type(target).__name__}, "
            "not a callable that takes training.args and returns a Task",
        )
    try:
        task = target(dict(args))
    except Exception as error:
        if may_pass(error):
            raise
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r} raised when called with spec.training.args:\n"
            f"{task_traceback(error)}{_hidden_import(error)}{_no_data(error)}",
        ) from None
    return _checked(task, entrypoint)


def task_traceback(error: BaseException) -> str:
    """Format an exception from its first frame outside dtjob, message included.

    Only for what happens before the first private read: the message may show data.
    """
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames, chain=False)
    return "".join(lines).rstrip()


def shown_in_full(what: str, error: BaseException, remedy: str) -> str:
    """What failed before the first private read, with the task's own error and traceback."""
    # The error first: where a long message is cut, the traceback is what goes.
    return (
        f"{what}{where_in_task(error)}: {type(error).__name__}: {error}. {remedy}.\n"
        f"{task_traceback(error)}"
    )


def where_in_task(error: BaseException) -> str:
    """File, line and function of the innermost frame that is neither dtjob's nor installed.

    Where all is installed, of the innermost one beside the first frame outside dtjob. A long
    traceback is cut in its middle, which is where the task's own lines are.
    """
    others = [
        (Path(frame.f_code.co_filename), line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_ours(frame.f_code.co_filename)
    ]
    if not others:
        return ""
    libraries = imported.libraries()
    own = [found for found in others if not any(found[0].is_relative_to(it) for it in libraries)]
    folder = others[0][0].parent
    path, line, function = (own or [it for it in others if it[0].is_relative_to(folder)])[-1]
    return f" at {path}:{line} in {function}"


def task_code_place(error: BaseException, entrypoint: str) -> str | None:
    """File and line of task code in an exception's traceback; None if it did not pass through any.

    All that a failure on private data may reveal besides its class (Rule 20): the exception's
    message, arguments and chained exceptions may hold a record. Task code is what lies in the
    entrypoint's top-level package, or beside a lone module; beside one that is installed lies all
    that is installed, so there the module alone is. Code of dtjob is none but for its own tasks.
    """
    root = task_root(entrypoint)
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if root is not None and path.is_relative_to(root) and not _is_ours(str(path)):
            place = f"{path.relative_to(root.parent)}:{line}"
    return place


def raised_by_dtjob(error: BaseException) -> bool:
    """Whether dtjob itself raised the exception: a task may raise a class of ours too."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and _is_ours(frames[-1])


def _import(module_name: str, entrypoint: str, in_pod: bool) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        remedy = not_found.remedy(module_name, missing, in_pod=in_pod)
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r}: no module named {missing!r}; {remedy}",
        ) from None
    except Exception as error:
        if may_pass(error):
            raise
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r}: importing {module_name} raised:\n"
            f"{_without_import_machinery(error)}{_hidden_import(error)}{_no_data(error)}",
        ) from None


def _check_no_library_module(module_name: str, entrypoint: str) -> None:
    top = module_name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise TaskError(
            Reason.ENTRYPOINT_INVALID,
            f"spec.training.entrypoint {entrypoint!r}: {top} is a module of Python's standard "
            f"library, which no other can replace; give yours another name, such as {top}_task",
        )


def _hidden_import(error: Exception) -> str:
    """The remedy where the task wanted a module of its own and got another of the same name."""
    wanted = error.name if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        wanted = error.obj.__name__
    return _other_file(wanted) if wanted else ""


def _other_file(module_name: str) -> str:
    top = module_name.partition(".")[0]
    own = library_first.hidden(top)
    if own is None:
        return ""
    whose = "of Python's standard library" if top in sys.stdlib_module_names else "loaded before"
    return f".\n{own} is not imported, since {top} is also a module {whose}: rename the file"


def _no_data(error: Exception) -> str:
    remedy = data_place.remedy(error)
    return f".\n{remedy}" if remedy else ""


def _checked(task: object, entrypoint: str) -> Task:
    if not isinstance(task, Task):
        raise TaskError(
            Reason.TASK_INVALID,
            f"spec.training.entrypoint {entrypoint!r} returned a {type(task).__name__}; "
            "it must return a dtjob_trainer.task.Task",
        )
    for name in ("model", "dataset", "losses"):
        if not callable(getattr(task, name)):
            raise TaskError(Reason.TASK_INVALID, f"{entrypoint}: Task.{name} must be callable")
    if task.evaluate is not None and not callable(task.evaluate):
        raise TaskError(
            Reason.TASK_INVALID, f"{entrypoint}: Task.evaluate must be callable or None"
        )
    if not isinstance(task.example_spec, Mapping) or not task.example_spec:
        raise TaskError(
            Reason.TASK_INVALID,
            f"{entrypoint}: Task.example_spec must map each field's name to an ArraySpec",
        )
    for name, spec in task.example_spec.items():
        if not isinstance(name, str) or not isinstance(spec, ArraySpec):
            raise TaskError(
                Reason.TASK_INVALID,
                f"{entrypoint}: Task.example_spec[{name!r}] is a {type(spec).__name__}; "
                "use ArraySpec(shape, dtype, low, high)",
            )
    return task


def _public_callables(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(sorted(names)) or "no callable of its own"


def task_root(entrypoint: str) -> Path | None:
    """The folder of task code, or its only file; for built-in tasks the folder `tasks`."""
    module = sys.modules.get(entrypoint.partition(":")[0])
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    if _is_ours_package(module.__name__):
        return Path(__file__).parent / "tasks"
    top = sys.modules.get(module.__name__.partition(".")[0])
    top_file = getattr(top, "__file__", None)
    folder = Path(top_file if top_file is not None else file).parent
    return Path(file) if folder in _installed() else folder


def _installed() -> set[Path]:
    """The folders that packages are installed into, dtjob among them."""
    return {
        Path(__file__).parents[1],
        *(Path(sysconfig.get_path(n)) for n in ("purelib", "platlib")),
    }


def _is_ours_package(name: str) -> bool:
    return name.partition(".")[0] == __package__


def _is_ours(filename: str) -> bool:
    path, here = Path(filename), Path(__file__).parent
    if path.is_relative_to(here / "tasks") or not path.is_relative_to(here.parent):
        return False
    return path.relative_to(here.parent).parts[0] in imported.OUR_PACKAGES


def _without_import_machinery(error: BaseException) -> str:
    frames: TracebackType | None = error.__traceback__
    while frames is not None and (
        _is_ours(frames.tb_frame.f_code.co_filename)
        or "importlib" in frames.tb_frame.f_code.co_filename
    ):
        frames = frames.tb_next
    return "".join(
        traceback.format_exception(type(error), error, frames, chain=False),
    ).rstrip()
