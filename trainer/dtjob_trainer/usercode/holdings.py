"""What a task's Python objects hold between passes, beside parameters and buffers.

Nobody here writes so as not to be seen. Not read is what code in C keeps, as the cache of
`functools.lru_cache`, what another thread has in a `threading.local`, files, and the clock.
"""

from __future__ import annotations

import argparse
import dis
import functools
import itertools
import logging
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from dtjob_trainer.usercode import imported, iterators

_PLAIN = (
    *(bool, int, float, complex, Fraction, Decimal),
    *(str, bytes, bytearray, array, type(None), range, itertools.count, np.generic),
    *(date, time, timedelta),
)
_SEQUENCES = (tuple, list, set, frozenset, deque)
# Of modules and parameters: {number: hook}, the next number of all each time that one is added.
_HOOKS = "_hooks"
#: What torch itself keeps in each module, but for the mode that it is in and the task's hooks.
_OF_TORCH = frozenset(
    each for each in vars(torch.nn.Module()) if each != "training" and not each.endswith(_HOOKS)
)
# Those of Python's own classes whose objects a task writes to.
_OPEN = (torch.nn.Module, ModuleType, argparse.Namespace, SimpleNamespace, threading.local)
# Of more entries, of one collection or of all that is read, it is noted how many they are; of a
# tensor, how often it was written to.
_MAX_ENTRIES, _MAX_OF_ALL = 1 << 14, 1 << 17


def holdings(model: torch.nn.Module, losses: Callable[..., object]) -> dict[str, str]:
    """Return {where: what} of numbers, texts, arrays and tensors that later passes find there.

    In attributes of modules and of objects in them, however deep, in what functions have enclosed
    and have for defaults, and in the classes and globals of the Python modules where these are
    written and that they import, but for those of libraries and of dtjob. In hooks and in the
    task's own handlers of log records, too.
    """
    reader = _Reader()
    for name, module in model.named_modules():
        reader.add(f"module {name or 'model'} ({type(module).__name__})", module)
    for name, p in model.named_parameters():
        if hooks := _hooks(p):
            reader.add(f"parameter {name}", hooks)
    reader.add("all modules", _hooks(torch.nn.modules.module))
    reader.add("the handlers of logging", _handlers())
    reader.add("losses()", losses)
    reader.read()
    read: set[str] = set()
    while unread := sorted(reader.written - read):
        read.update(unread)
        for each in unread:
            reader.add(each, sys.modules[each])
        reader.read()
    return reader.found


class _Reader:
    """Reads objects, each once, and what is near before what is far: it has the shorter name.

    Attributes
    ----------
    found
        What has been read.
    written
        The modules of Python where its functions and classes are written, if somebody wrote them
        for a task.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.written: set[str] = set()
        # With a reference: no other object gets its address.
        self._seen: dict[int, object] = {}
        self._waiting: deque[tuple[str, object]] = deque()
        self._left = _MAX_OF_ALL

    def add(self, where: str, value: object) -> None:
        """Let an object be read."""
        self._waiting.append((where, value))

    def read(self) -> None:
        """Note what the objects hold, and what is within that."""
        while self._waiting:
            where, value = self._waiting.popleft()
            if isinstance(value, _PLAIN):
                self.found[where] = repr(value)
            elif isinstance(value, (np.ndarray, torch.Tensor)):
                self.found[where] = _entries(value)
            elif id(value) not in self._seen:
                self._seen[id(value)] = value
                try:
                    for name, each in self._parts(value):
                        self.add(f"{where}{name}", each)
                except Exception as error:  # of the object's own, as of a mapping that is not whole
                    self.add(f"{where} (unreadable)", type(error).__name__)

    def _parts(self, value: object) -> Iterator[tuple[str, object]]:
        """What an object consists of, each with what is added to its name."""
        if isinstance(value, Mapping):
            yield from self._some(value, ((f"[{key!r}]", each) for key, each in value.items()))
            yield from self._beside(value)
        elif isinstance(value, _SEQUENCES):
            yield from self._some(value, ((f"[{at}]", each) for at, each in enumerate(value)))
            yield from self._beside(value)
        elif isinstance(value, functools.partial):
            yield from (("", each) for each in (value.func, value.args, value.keywords))
        elif (position := iterators.position(value)) is not None:
            yield from position
        elif isinstance(value, MethodType):
            yield from (("", each) for each in (value.__self__, value.__func__))
        elif isinstance(value, FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, (staticmethod, classmethod)):
            yield "", value.__func__
        elif isinstance(value, property):
            yield from (("", each) for each in (value.fget, value.fset))
        elif isinstance(value, type):
            for kind in value.__mro__:
                if self._note(kind.__module__):
                    yield from ((f".{name}", each) for name, each in _attributes(kind))
        elif isinstance(value, _OPEN) or not _is_machinery(type(value).__module__):
            yield from self._of_object(value)

    def _of_function(self, function: FunctionType) -> Iterator[tuple[str, object]]:
        self._note(function.__module__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        yield from ((f": {name}", _content(cell)) for name, cell in cells)
        if _is_of_task(function.__module__):
            given = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
            yield from ((f": default {at}", each) for at, each in enumerate(given))
            yield from ((f".{name}", each) for name, each in _attributes(function))
            for module in _imported_in(function.__code__, function.__globals__):
                self._note(module)

    def _of_object(self, value: object) -> Iterator[tuple[str, object]]:
        attributes = list(_attributes(value))
        self._left -= len(attributes)
        if self._left >= 0:
            yield from ((f".{name}", each) for name, each in attributes)
        if isinstance(value, ModuleType):
            for each in list(vars(value).values()):
                if isinstance(each, ModuleType):
                    self._note(each.__name__)
        elif self._note(type(value).__module__):
            yield f" ({type(value).__name__})", type(value)

    def _some(
        self, value: Collection[object], parts: Iterator[tuple[str, object]]
    ) -> Iterator[tuple[str, object]]:
        yield " (entries)", len(value)
        self._left -= len(value)
        if len(value) <= _MAX_ENTRIES and self._left >= 0:
            yield from list(parts)

    def _beside(self, value: object) -> Iterator[tuple[str, object]]:
        """What a class of the task's, which derives from a collection, has beside the entries."""
        if self._note(type(value).__module__):
            yield from ((f".{name}", each) for name, each in _attributes(value))
            yield f" ({type(value).__name__})", type(value)

    def _note(self, module: str) -> bool:
        """Whether code of that module was written for a task; its globals are read then."""
        if not _is_of_task(module):
            return False
        self.written.add(module)
        return True


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    is_module = isinstance(value, torch.nn.Module)
    passed = _OF_TORCH if is_module else frozenset()
    inside = dict(getattr(value, "__dict__", {}))
    for kind in () if isinstance(value, type) else type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            inside[name] = getattr(value, name, None)
    for name, each in list(inside.items()):
        of_python = name.startswith("__") and name.endswith("__")
        is_own = name not in passed and not (of_python and not isinstance(each, FunctionType))
        if is_own and not isinstance(each, (ModuleType, torch.nn.Parameter)):
            yield name, list(each.values()) if is_module and name.endswith(_HOOKS) else each


def _hooks(value: object) -> dict[str, list[object]]:
    """Those that torch itself keeps for a parameter, or in a Python module for all modules."""
    kept = {name: getattr(value, name) for name in dir(value) if name.endswith(_HOOKS)}
    return {name: list(each.values()) for name, each in kept.items() if each}


def _handlers() -> list[logging.Handler]:
    """What gets records of the log, and is of a class of the task's."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for each in loggers for handler in getattr(each, "handlers", ())]
    return [each for each in handlers if _is_of_task(type(each).__module__)]


def _imported_in(code: CodeType, names: Mapping[str, object]) -> Iterator[str]:
    """The modules that code within a function may import once it runs, and that have been.

    Parameters
    ----------
    names
        The function's globals, by which relative imports are resolved.
    """
    nested = [each for each in code.co_consts if isinstance(each, CodeType)]
    yield from (module for each in nested for module in _imported_in(each, names))
    if not any(each.opname == "IMPORT_NAME" for each in dis.get_instructions(code)):
        return
    packages = str(names.get("__package__") or "").split(".")
    above = [".".join(packages[:n]) for n in range(len(packages) + 1)]
    # `from package import module` has the two names one by one.
    for first, second in itertools.product([*above, *code.co_names], code.co_names):
        name = f"{first}.{second}" if first else second
        if name in sys.modules:
            yield name


def _is_machinery(module: str) -> bool:
    """Whether code is dtjob's or Python's own: of mailboxes, loggers and locks nothing is read."""
    top = module.partition(".")[0]
    return top in imported.OUR_PACKAGES or top in sys.stdlib_module_names


@functools.lru_cache(maxsize=1024)
def _is_of_task(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or module.partition(".")[0] in imported.OUR_PACKAGES:
        return False
    return not any(Path(file).is_relative_to(each) for each in imported.libraries())


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _entries(values: np.ndarray[Any, Any] | torch.Tensor) -> str:
    if isinstance(values, torch.Tensor):
        if values.is_meta or values.is_inference() or values.layout != torch.strided:
            return str(values.shape)
        if values.numel() > _MAX_ENTRIES:
            return f"{values.shape} {values._version}"
        values = values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return f"{values.shape} {hash(values.tobytes()) if values.size <= 16 * _MAX_ENTRIES else 0}"
