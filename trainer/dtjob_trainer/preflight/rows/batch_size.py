"""Whether an example's loss follows from how many rows its batch has (Rule 5).

A batch of another size takes other random numbers, also for the same rows. So every random number
is one that follows from the call alone, and what else would be dropped is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from dtjob_api.reasons import Reason
from dtjob_trainer.preflight import probes
from dtjob_trainer.preflight.rows.operators import Operators, TooMany
from dtjob_trainer.preflight.rows.passes import Endless, most_operators
from dtjob_trainer.task import Task, TaskError, where_in_task

# What an argument that decides how much is dropped is set to, by its name; in other operators than
# those that only draw.
_NOTHING_DROPPED = {"dropout": 0.0, "dropout_p": 0.0, "train": False, "training": False}
_UNIFORM = frozenset({"uniform", "uniform_"})
_NORMAL = frozenset({"normal", "normal_"})
_HALF = frozenset({"rand", "rand_like", "randn", "randn_like"})
_WHOLE = frozenset({"randint", "randint_like", "random", "random_"})


def check(task: Task, model: torch.nn.Module, batch: probes.Batch, large: probes.Batch) -> None:
    """Refuse losses that are scaled with the number of rows.

    Parameters
    ----------
    batch, large
        Of some rows each; all of `large` are beside rows of `batch` in a larger batch.

    Raises
    ------
    TaskError
    """
    rows = min(probes.rows_of(batch), probes.rows_of(large))
    joined = {name: torch.cat([batch[name][:rows], large[name], large[name]]) for name in batch}
    alone = {name: tensor[:rows] for name, tensor in joined.items()}
    usual = Operators()
    with usual:
        probes.dry_run(lambda: probes.losses_of(task, model, joined))
    try:
        with Operators.at_most(most_operators(usual.count)), _Constant():
            apart = probes.dry_run(lambda: probes.losses_of(task, model, alone)).detach()
            together = probes.dry_run(lambda: probes.losses_of(task, model, joined)).detach()[:rows]
    except TooMany as error:
        raise Endless("one number for all random numbers", where_in_task(error)) from None
    if probes.differing_rows(apart, together):
        raise TaskError(
            Reason.MODEL_REFUSED,
            "losses() gives an example another loss in a larger batch; don't divide by the number "
            "of rows and don't average: dtjob divides the sum by the public batchSize",
        )


class _Constant(Operators):
    """Lets each random operator give one number, and in order what is an order."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        names = [argument.name for argument in func._schema.arguments]
        given = {
            **{each.name: each.default_value for each in func._schema.arguments},
            **dict(zip(names, args, strict=False)),
            **kwargs,
        }
        name = func.overloadpacket.__name__
        if kept := {each: _NOTHING_DROPPED[each] for each in names if each in _NOTHING_DROPPED}:
            args = tuple(kept.get(each, value) for each, value in zip(names, args, strict=False))
            kwargs = {each: kept.get(each, value) for each, value in kwargs.items()}
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        for each in tree_leaves(result):
            if name == "randperm":
                torch.arange(len(each), out=each)
            else:
                each.fill_(_number(name, given))
        return result


def _number(name: str, given: Mapping[str, Any]) -> float:
    """A number that the operator might give."""
    if name in _HALF:
        return 0.5
    if name in _WHOLE:
        return _first(given, "low", "from")
    if name in _UNIFORM:
        return float(given["from"] + given["to"]) / 2
    if name in _NORMAL and not isinstance(given["mean"], torch.Tensor):
        return float(given["mean"])
    return 0.0 if name == "multinomial" else 1.0


def _first(given: Mapping[str, Any], *names: str) -> float:
    return float(next((given[name] for name in names if given.get(name) is not None), 0))
