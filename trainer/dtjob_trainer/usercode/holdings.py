"""What a task's Python objects hold between passes, beside parameters and buffers.

Nobody here writes so as not to be seen. Not read is what code in C keeps, as the cache of
`functools.lru_cache`, what another thread has in a `threading.local`, files, and the clock.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType, SimpleNamespace
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
#: What torch itself keeps in each module, but for the mode that it is in.
_OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
# Those of Python's own classes whose objects a task writes to.
_OPEN = (torch.nn.Module, ModuleType, argparse.Namespace, SimpleNamespace, threading.local)
_MAX_DEPTH = 6
# Of more entries, of one collection or of all, it is noted how many they are; of a tensor, how
# often it was written to.
_MAX_ENTRIES, _MAX_OF_ALL = 1 << 14, 1 << 17


def holdings(model: torch.nn.Module, losses: Callable[..., object]) -> dict[str, str]:
    """Return {where: what} of numbers, texts, arrays and tensors that later passes find there.

    In attributes of modules and of objects in them, in what functions have enclosed and have for
    defaults, and in the classes and globals of the Python modules where these are written, but for
    those of libraries and of dtjob.
    """
    reader = _Reader()
    for name, module in model.named_modules():
        reader.read(f"module {name or 'model'} ({type(module).__name__})", module, _MAX_DEPTH)
    reader.read("losses()", losses, _MAX_DEPTH)
    read: set[str] = set()
    while unread := sorted(reader.written - read):
        read.update(unread)
        for each in unread:
            reader.read(each, sys.modules[each], _MAX_DEPTH)
    return reader.found


class _Reader:
    """Reads objects, each once.

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
        # With how much depth was left, and a reference: no other object gets its address.
        self._seen: dict[int, tuple[object, int]] = {}
        self._left = _MAX_OF_ALL

    def read(self, where: str, value: object, depth: int) -> None:
        """Note what an object holds, and what is within it."""
        if isinstance(value, _PLAIN):
            self.found[where] = repr(value)
        elif isinstance(value, (np.ndarray, torch.Tensor)):
            self.found[where] = _entries(value)
        elif depth > self._seen.get(id(value), (None, 0))[1]:
            self._seen[id(value)] = (value, depth)
            try:
                for name, each in self._parts(value):
                    self.read(f"{where}{name}", each, depth - 1)
            except Exception as error:  # of the object's own, such as a mapping that is not whole
                self.found[f"{where} (unreadable)"] = type(error).__name__

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

    def _of_object(self, value: object) -> Iterator[tuple[str, object]]:
        yield from ((f".{name}", each) for name, each in _attributes(value))
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
    passed = _OF_TORCH if isinstance(value, torch.nn.Module) else frozenset()
    inside = dict(getattr(value, "__dict__", {}))
    for kind in () if isinstance(value, type) else type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            inside[name] = getattr(value, name, None)
    for name, each in list(inside.items()):
        is_own = name not in passed and not name.startswith("__")
        if is_own and not isinstance(each, (ModuleType, torch.nn.Parameter)):
            yield name, each


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
