"""Rule 21: what a task's objects hold between passes, wherever it is."""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import logging
import multiprocessing
import random
import sys
import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.usercode import holdings as held
from dtjob_trainer.usercode.holdings import holdings

CALLS = [0]


@dataclass(slots=True)
class Slotted:
    """Has no dict of attributes."""

    turn: int = 0


class Config:
    """An object of the task's own."""

    seen = 0

    def __init__(self) -> None:
        self.turn = 0
        self.nested = {"deep": [0, 0]}
        self.itself = self


def counting() -> Iterator[int]:
    """Yields the same each time, and counts meanwhile."""
    for _ in range(9):
        yield 0


def passed_on() -> Iterator[int]:
    """Counts in another generator."""
    yield from iter([0, 0, 0])


def in_a_loop() -> Iterator[int]:
    """Counts in what it loops over, which has no name."""
    for each in [0, 0, 0]:
        yield each + 1


class Settings(dict[str, int]):
    """A dict that counts beside its entries."""

    step = 0


class Log(list[int]):
    """A list that counts beside its entries."""

    step = 0


class Box:
    """Holds others."""

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)


class Lazy(dict[str, int]):
    """Can't tell what it holds."""

    def items(self) -> Any:
        raise RuntimeError("not here")


class Base(nn.Module):
    """Counts for all that derive from it."""

    calls = 0


class Model(Base):
    """Holds something of every kind."""

    passes = 0

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.number, self.text, self.nothing = 0, "", None
        self.numbers, self.names = [0.0], {"a"}
        self.recent: deque[int] = deque(maxlen=3)
        self.counts: Counter[str] = Counter()
        self.config = Config()
        self.kept, self.array = torch.zeros(2), np.zeros(2)
        self.turns = itertools.count()
        self.slotted, self.options = Slotted(), argparse.Namespace(step=0)
        self.whole = np.int64(0)
        self.shares, self.bits, self.since = Fraction(0), array("i"), timedelta()
        self.local, self.context = threading.local(), ContextVar("context", default=0)
        self.listed, self.round = iter([0] * 9), itertools.cycle([0, 0, 0])
        self.pairs = zip(iter(range(9)), itertools.repeat(0), strict=False)
        self.counting = counting()
        self.python, self.torch = random.Random(0), torch.Generator()
        self.numpy, self.older = np.random.default_rng(0), np.random.RandomState(0)
        self.passed_on, self.in_a_loop = passed_on(), in_a_loop()
        next(self.passed_on), next(self.in_a_loop)
        self.settings, self.log = Settings(lr=1), Log()
        far = {"steps": [0]}
        self.deep, self.far = Box(Box(Box(far))), far
        self.depths: list[Any] = [0]
        for _ in range(40):
            self.depths = [self.depths]
        self.system, self.lazy = random.SystemRandom(), Lazy(a=1)


def losses(model: nn.Module, batch: object, steps: list[int] = [0]) -> None:  # noqa: B006
    """Has a default that is one for all calls."""


def count_in_model_class(_: Model) -> None:
    Model.passes += 1


def count_in_function(_: Model) -> None:
    losses.calls = getattr(losses, "calls", 0) + 1  # type: ignore[attr-defined]


def count_in_default(_: Model) -> None:
    (steps,) = losses.__defaults__ or ()
    steps[0] += 1


def count_in_slots(model: Model) -> None:
    model.slotted.turn += 1


def count_in_options(model: Model) -> None:
    model.options.step += 1


def count_in_numpy(model: Model) -> None:
    model.whole += 1


def changing(change: Callable[[Model], object]) -> list[str]:
    """The places that a change of a model is seen at."""
    model = Model()
    before = holdings(model, losses)
    change(model)
    after = holdings(model, losses)
    return [where for where in before | after if before.get(where) != after.get(where)]


def bottom(value: Any) -> Any:
    """The innermost list."""
    return bottom(value[0]) if isinstance(value[0], list) else value


def count(model: Model) -> None:
    model.number += 1


def count_in_class(_: Model) -> None:
    Config.seen += 1


def count_in_base(_: Model) -> None:
    Base.calls += 1


def count_globally(_: Model) -> None:
    CALLS.append(0)


CHANGES: dict[str, tuple[Callable[[Model], Any], str]] = {
    "a number": (count, "module model (Model).number"),
    "a text": (lambda m: setattr(m, "text", "a"), "module model (Model).text"),
    "what was nothing": (lambda m: setattr(m, "nothing", 1.0), "module model (Model).nothing"),
    "what was not there": (lambda m: setattr(m, "later", True), "module model (Model).later"),
    "a list": (lambda m: m.numbers.append(1.0), "module model (Model).numbers (entries)"),
    "an entry": (lambda m: m.numbers.__setitem__(0, 1.0), "module model (Model).numbers[0]"),
    "a set": (lambda m: m.names.add("b"), "module model (Model).names (entries)"),
    "a queue": (lambda m: m.recent.append(1), "module model (Model).recent (entries)"),
    "a dict": (lambda m: m.counts.update("a"), "module model (Model).counts['a']"),
    "an object": (lambda m: setattr(m.config, "turn", 1), "module model (Model).config.turn"),
    "deep in it": (
        lambda m: m.config.nested["deep"].append(1),
        "module model (Model).config.nested['deep'] (entries)",
    ),
    "an attribute of its class": (count_in_class, ".seen"),
    "a tensor": (lambda m: m.kept.add_(1), "module model (Model).kept"),
    "an array": (lambda m: m.array.__setitem__(0, 1.0), "module model (Model).array"),
    "an iterator that counts": (lambda m: next(m.turns), "module model (Model).turns"),
    "a module of torch's": (
        lambda m: setattr(m.inner, "calls", 1),
        "module inner (Linear).calls",
    ),
    "an attribute of the model's class": (count_in_model_class, ".passes"),
    "an attribute of a function": (count_in_function, "losses().calls"),
    "a default": (count_in_default, "losses(): default 0[0]"),
    "a slot": (count_in_slots, "module model (Model).slotted.turn"),
    "an object of a library's": (count_in_options, "module model (Model).options.step"),
    "a number of numpy's": (count_in_numpy, "module model (Model).whole"),
    "a global": (count_globally, ".CALLS (entries)"),
    "a fraction": (lambda m: setattr(m, "shares", m.shares + 1), "module model (Model).shares"),
    "an array of Python's": (lambda m: m.bits.append(1), "module model (Model).bits"),
    "a time": (
        lambda m: setattr(m, "since", timedelta(1)),
        "module model (Model).since",
    ),
    "what a thread has": (lambda m: setattr(m.local, "turn", 1), "module model (Model).local.turn"),
    "what a context has": (lambda m: m.context.set(1), "module model (Model).context"),
    "an iterator over a list": (lambda m: next(m.listed), "module model (Model).listed (iterator)"),
    "an iterator that comes round": (
        lambda m: next(m.round),
        "module model (Model).round (iterator)[0] (iterator)",
    ),
    "iterators side by side": (
        lambda m: next(m.pairs),
        "module model (Model).pairs (iterator)[0] (iterator)",
    ),
    "a generator function": (
        lambda m: (next(m.counting), next(m.counting)),
        "module model (Model).counting: _",
    ),
    "an attribute of a base class": (count_in_base, ".calls"),
    "what a generator passes on": (lambda m: next(m.passed_on), " (iterator)"),
    "what a generator loops over": (lambda m: next(m.in_a_loop), " (iterator)"),
    "beside the entries of a dict": (
        lambda m: setattr(m.settings, "step", 1),
        "module model (Model).settings.step",
    ),
    "beside the entries of a list": (
        lambda m: setattr(m.log, "step", 1),
        "module model (Model).log.step",
    ),
    "what is met on a deep path first": (
        lambda m: m.far["steps"].__setitem__(0, 1),
        "module model (Model).far['steps'][0]",
    ),
    "forty lists deep": (lambda m: bottom(m.depths).__setitem__(0, 1), "[0]" * 41),
    "random numbers of Python's": (
        lambda m: m.python.random(),
        "module model (Model).python (random numbers)",
    ),
    "random numbers of torch's": (
        lambda m: torch.rand(1, generator=m.torch),
        "module model (Model).torch (random numbers)",
    ),
    "random numbers of numpy's": (
        lambda m: m.numpy.random(),
        "module model (Model).numpy (random numbers)",
    ),
    "random numbers of numpy's older kind": (
        lambda m: m.older.rand(),
        "module model (Model).older (random numbers)",
    ),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    change, where = CHANGES[name]
    found = changing(change)
    assert any(each.endswith(where) for each in found), found


def test_what_dtjob_and_python_keep_for_themselves_is_not_read() -> None:
    """A dry run is wrapped by what tells of its progress."""
    mail, logger = Mailbox(multiprocessing.Pipe()[0]), logging.getLogger("test_holdings")

    def beating() -> None:
        mail.progress()
        logger.info("beating")

    before = holdings(nn.Linear(1, 1), beating)
    logger.setLevel(logging.DEBUG)
    vars(mail)["_sent"] = 1.0
    assert holdings(nn.Linear(1, 1), beating) == before


def test_what_does_not_change_is_the_same() -> None:
    assert changing(lambda model: model.inner(torch.ones(1, 2)).sum().backward()) == []


@pytest.mark.rule(21)
def test_what_functions_have_enclosed_and_are_given_is_seen() -> None:
    inner = {"calls": 0}

    def counting(*_: object, **__: object) -> int:
        inner["calls"] += 1
        return inner["calls"]

    steps = [0]
    wrapped = functools.partial(counting, step=steps)
    model = nn.Linear(1, 1)
    before = holdings(model, wrapped)
    steps[0] = 1
    between = holdings(model, wrapped)
    assert before != between
    counting()
    assert holdings(model, wrapped) != between


@pytest.mark.rule(21)
def test_the_object_of_a_method_is_seen() -> None:
    class Task:
        def __init__(self) -> None:
            self.calls = 0

        def losses(self) -> None:
            self.calls += 1

    task = Task()
    before = holdings(nn.Linear(1, 1), task.losses)
    task.losses()
    assert holdings(nn.Linear(1, 1), task.losses) != before


def test_parameters_buffers_and_large_tables_cost_nothing() -> None:
    """Others watch what is trained; of a large list or tensor the size is read alone."""
    model = Model()
    model.numbers = [0.0] * 10**6
    model.kept = torch.zeros(10**6)
    found = holdings(model, losses)
    assert found["module model (Model).numbers (entries)"] == str(10**6)
    assert len(found) < 10**4
    before = found["module model (Model).kept"]
    model.kept.add_(1)
    assert holdings(model, losses)["module model (Model).kept"] != before
    with torch.no_grad():
        model.inner.weight.add_(1)
    assert not any("inner" in where and "weight" in where for where in holdings(model, losses))


def test_reading_an_iterator_takes_nothing_from_it() -> None:
    model = Model()
    holdings(model, losses)
    assert list(model.listed) == [0] * 9
    assert list(model.pairs) == [(n, 0) for n in range(9)]
    assert list(model.counting) == [0] * 9


def test_an_iterator_that_can_not_be_copied_is_passed_over() -> None:
    values = iter(memoryview(b"ab"))
    with pytest.raises(TypeError):
        values.__reduce__()
    model = nn.Linear(1, 1)
    vars(model)["values"] = values
    assert holdings(model, losses)
    assert list(values) == [97, 98]


COUNTS = """
calls = 0


def late():
    global calls
    calls += 1
    return calls > 9
"""
ASKS = """
import schedule


def losses(model, batch):
    return schedule.late()
"""


WITHIN = """
def losses(model, batch):
    def inner():
        import schedule
        return schedule.late()
    return inner()
"""
RELATIVE = """
class Task:
    @staticmethod
    def losses(model, batch):
        from . import schedule
        return schedule.late()


losses = Task.losses
"""
FROM = """
def losses(model, batch):
    from package_of_task.schedule import late
    return late()
"""


@pytest.mark.rule(21)
@pytest.mark.parametrize(
    ("package", "text"),
    [("", ASKS), ("", WITHIN), ("package_of_task.", RELATIVE), ("package_of_task.", FROM)],
    ids=["at the top", "within a function", "by a relative name", "a name of it"],
)
def test_what_another_file_of_the_task_holds_is_seen(
    package: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reached by its module alone: no function of it is held anywhere."""
    folder = tmp_path / package.removesuffix(".")
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "schedule.py").write_text(COUNTS)
    (folder / "task_of_two_files.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("package_of_task", f"{package}task_of_two_files", f"{package}schedule")
    for each in names:
        monkeypatch.delitem(sys.modules, each, raising=False)
    held._is_of_task.cache_clear()
    task = importlib.import_module(names[1])
    task.losses(None, None)  # by which it is imported
    before = holdings(nn.Linear(1, 1), task.losses)
    task.losses(None, None)
    after = holdings(nn.Linear(1, 1), task.losses)
    for each in names:
        sys.modules.pop(each, None)
    changed = [where for where in after if before.get(where) != after[where]]
    assert changed == [f"{package}schedule.calls"]


def test_many_tables_cost_as_much_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look would else take seconds, and there are eleven."""
    monkeypatch.setattr(held, "_MAX_OF_ALL", 1000)
    model = nn.Linear(1, 1)
    model.tables = [[0.0] * 100 for _ in range(100)]  # type: ignore[assignment]
    found = holdings(model, losses)
    assert sum("tables[" in where for where in found) < 1000 + 2 * 100
    assert "module model (Linear).tables[99] (entries)" in found
    assert holdings(model, losses) == found
