"""Rule 21: what hooks, handlers of the log and special methods hold between passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as of_modules

from dtjob_trainer.usercode.holdings import holdings

LOGGER = "test_holdings_hooks"


class Hook:
    """Counts its calls."""

    def __init__(self) -> None:
        self.step = 0

    def __call__(self, *_: object) -> None:
        self.step += 1


class Handler(logging.Handler):
    """Counts records of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.records = 0

    def emit(self, _: logging.LogRecord) -> None:
        self.records += 1


class Layer(nn.Linear):
    """Counts in defaults of functions of every kind, and under names with underlines."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        vars(self)["__turn"] = 0

    @staticmethod
    def static(state: list[int] = [0]) -> None:  # noqa: B006
        state[0] += 1

    @classmethod
    def of_class(cls, state: list[int] = [0]) -> None:  # noqa: B006
        state[0] += 1

    @property
    def value(self) -> int:
        self._count()
        return 0

    def _count(self, state: list[int] = [0]) -> None:  # noqa: B006
        state[0] += 1

    def __len__(self, state: list[int] = [0]) -> int:  # noqa: B006
        state[0] += 1
        return 0


def of_forward(model: Layer) -> None:
    model.register_forward_hook(Hook())


def before_forward(model: Layer) -> None:
    turns = [0]

    def hook(*_: object) -> None:
        turns[0] += 1

    model.register_forward_pre_hook(hook)


def of_backward(model: Layer) -> None:
    model.register_full_backward_hook(Hook())


def of_a_weight(model: Layer) -> None:
    model.weight.register_hook(Hook())


def after_a_weight(model: Layer) -> None:
    model.weight.register_post_accumulate_grad_hook(Hook())


def of_all_modules(_: Layer) -> None:
    of_modules.register_module_forward_hook(Hook())


def of_the_log(_: Layer) -> None:
    logging.getLogger(LOGGER).addHandler(Handler())


@pytest.fixture(autouse=True)
def _nothing_of_all() -> Iterator[None]:
    """Ends what is registered for all modules, and for the log."""
    yield
    of_modules._global_forward_hooks.clear()
    logging.getLogger(LOGGER).handlers.clear()


def one_pass(model: Layer) -> None:
    model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    logging.getLogger(LOGGER).warning("a pass")


def changed(model: Layer, change: Callable[[Layer], Any]) -> list[str]:
    """The places that a change of a model is seen at."""
    before = holdings(model, one_pass)
    change(model)
    after = holdings(model, one_pass)
    return [where for where in before | after if before.get(where) != after.get(where)]


HOOKS: dict[str, tuple[Callable[[Layer], None], str]] = {
    "a forward hook": (of_forward, "module model (Layer)._forward_hooks[0].step"),
    "a hook before": (before_forward, "module model (Layer)._forward_pre_hooks[0]: turns[0]"),
    "a backward hook": (of_backward, "module model (Layer)._backward_hooks[0].step"),
    "a weight's hook": (of_a_weight, "parameter weight['_backward_hooks'][0].step"),
    "a hook after a weight": (
        after_a_weight,
        "parameter weight['_post_accumulate_grad_hooks'][0].step",
    ),
    "a hook of all modules": (of_all_modules, "all modules['_global_forward_hooks'][0].step"),
    "a handler of the log": (of_the_log, "the handlers of logging[0].records"),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", HOOKS)
def test_what_a_hook_counts_is_seen(name: str) -> None:
    register, where = HOOKS[name]
    model = Layer()
    register(model)
    assert changed(model, one_pass) == [where]


DEFAULTS: dict[str, tuple[Callable[[Layer], Any], str]] = {
    "a static method": (lambda model: model.static(), ".static: default 0[0]"),
    "a class method": (lambda model: model.of_class(), ".of_class: default 0[0]"),
    "a property": (lambda model: model.value, "._count: default 0[0]"),
    "a special method": (len, ".__len__: default 0[0]"),
    "an attribute with underlines": (
        lambda model: vars(model).update(__turn=1),
        "module model (Layer).__turn",
    ),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", DEFAULTS)
def test_what_methods_have_for_defaults_is_seen(name: str) -> None:
    change, where = DEFAULTS[name]
    found = changed(Layer(), change)
    assert len(found) == 1
    assert found[0].endswith(where)


def test_a_hook_that_each_pass_registers_anew_is_the_same() -> None:
    """Its number is another one each time."""
    model = Layer()
    handles = [model.register_forward_hook(print)]

    def again(model: Layer) -> None:
        handles.pop().remove()
        handles.append(model.register_forward_hook(print))

    assert changed(model, again) == []
