"""Random numbers of which a row's reach other rows, told without statistics (Rules 8 and 21).

Each random operator runs on two streams. Row i of what it gives is taken from one of them, the
other rows from the other: no other row's loss or gradient may move by a bit, for each i.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.watch.structure import Look, ValueAsked, ValueKept, looked_at
from dtjob_trainer.preflight import refusals
from dtjob_trainer.preflight.rows import own_random, random_calls
from dtjob_trainer.preflight.rows.axes import FEWER_ROWS, ROWS, Axis, axis_of
from dtjob_trainer.preflight.rows.passes import Batch, Pass, Passes, others
from dtjob_trainer.preflight.rows.random_calls import Call, RandomCalls
from dtjob_trainer.preflight.rows.whereabouts import met_at
from dtjob_trainer.task import TaskError, where_in_task

_SEEDS = (0, 1, 2)
# Operators that draw the same numbers once more in the backward pass, from a seed that they keep:
# what is spliced in their output is not in their gradient.
_KEEP_A_SEED = frozenset(
    {
        "_cudnn_rnn",
        "_efficient_attention_forward",
        "_flash_attention_forward",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_fused_attention_overrideable",
        "miopen_rnn",
    }
)
_REMEDY = (
    "draw random numbers for each row, of shape [rows, ...], and use a row's for that row alone "
    '(torchvision\'s StochasticDepth: mode="row"; an order for each row: '
    "torch.rand(rows, n).argsort(1))"
)

_OF_BLOCKS = (
    "torchvision's DropBlock divides by how much of the whole batch it keeps: take "
    "torch.nn.Dropout2d, or write it out and divide by what is kept of each row, "
    "noise.mean((1, 2, 3), keepdim=True)"
)


def check(passes: Passes, batch: Batch) -> None:
    """Refuse random numbers that several rows share or that a row gets from another.

    Parameters
    ----------
    batch
        Of `ROWS` rows.

    Raises
    ------
    TaskError
        Names the operator, where it runs, and the remedy.
    """
    own_random.check(passes, batch)
    calls = _recorded(passes, batch)
    fewer = _recorded(passes, {name: tensor[:FEWER_ROWS] for name, tensor in batch.items()})
    if not calls:
        return
    names, names_of_fewer = [each.name for each in calls], [each.name for each in fewer]
    if names != names_of_fewer:
        number = next(
            (n for n, (a, b) in enumerate(zip(names, names_of_fewer, strict=False)) if a != b),
            min(len(names), len(names_of_fewer)),
        )
        raise _refused(
            passes,
            batch,
            calls,
            min(number, len(calls) - 1),
            f"is one of {len(calls)} draws of random numbers for {ROWS} rows and {len(fewer)} for "
            f"{FEWER_ROWS}, so that the rows of a batch decide about each other's",
        )
    axes = {
        number: [axis_of(*shapes) for shapes in zip(call.shapes, fewer[number].shapes, strict=True)]
        for number, call in enumerate(calls)
    }
    _check_shared(passes, batch, calls, axes)
    _check_spliced(passes, batch, calls, axes)


def _recorded(passes: Passes, batch: Batch) -> list[Call]:
    recorder = RandomCalls(passes.device)
    try:
        passes.take(batch, around=recorder)
    except random_calls.OwnGenerator as error:
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"torch's {error} is given a generator of the task's own{where_in_task(error)}, whose "
            "numbers no secret key of a step decides: leave generator= out, and "
            f"{_REMEDY}",
        ) from None
    return recorder.calls


def _check_shared(
    passes: Passes, batch: Batch, calls: list[Call], axes: dict[int, list[Axis | None]]
) -> None:
    """Refuse calls that give nothing for each row, but for one that decides nothing."""
    idle = []
    for number, call in enumerate(calls):
        has_rows = [axis is not None for axis in axes[number]]
        if call.orders:
            raise _refused(
                passes, batch, calls, number, "draws an order or a choice, not numbers for each row"
            )
        if all(has_rows) or (call.name in _KEEP_A_SEED and any(has_rows)):
            continue
        if call.name != "rand":
            raise _refused(passes, batch, calls, number, _without_rows(call))
        idle.append(number)
    if not idle:
        return
    base = passes.take(batch)
    for value in (*random_calls.OF_RAND, 0.5):
        for number in idle:
            _check_structure(passes, batch, number, value)
            pinned = random_calls.pinned(passes.device, number, value)
            changed = passes.take(batch, around=pinned)
            if changed.moved(base, list(range(ROWS))) or len(pinned.calls) != len(calls):
                raise _refused(passes, batch, calls, number, _without_rows(calls[number]))


def _check_structure(passes: Passes, batch: Batch, number: int, value: float) -> None:
    """Refuse what a pass does behind a coin, as `refusals.check_structure` does in others."""
    copies = {name: tensor.clone() for name, tensor in batch.items()}
    looks: list[Look] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        pinned = random_calls.pinned(passes.device, number, value)
        with looked_at(passes.model, copies) as look, pinned:
            looks.append(look)
            yield

    try:
        passes.losses(copies, around=around())
        copies.clear()
        looks[0].check_forgotten()
    except (ValueAsked, ValueKept) as error:
        raise refusals.of_values(error) from None


def _check_spliced(
    passes: Passes, batch: Batch, calls: list[Call], axes: dict[int, list[Axis | None]]
) -> None:
    """Try that rows lie one after the other where an operator's rows are part of a dimension.

    If not, that they are dealt in turn.
    """
    found = _reaching(passes, batch, calls, axes, row_major=True)
    if found is None:
        return
    parts = any(axis is not None and axis.each > 1 for each in axes.values() for axis in each)
    if parts and _reaching(passes, batch, calls, axes, row_major=False) is None:
        return
    raise _refused(
        passes,
        batch,
        calls,
        found,
        "draws random numbers of which one row's move the loss or the gradient of another",
    )


def _reaching(
    passes: Passes,
    batch: Batch,
    calls: list[Call],
    axes: dict[int, list[Axis | None]],
    *,
    row_major: bool,
) -> int | None:
    """The number of a call of which a row's numbers reach another row; None if there is none."""
    keeps = any(call.name in _KEEP_A_SEED for call in calls)
    take = passes.losses if keeps else passes.take

    def moves(row: int, seed: int, base: Pass, which: dict[int, list[Axis | None]]) -> bool:
        around = random_calls.spliced(passes.device, row, which, row_major=row_major)
        return take(batch, seed=seed, around=around).moved(base, others(ROWS, row)) != []

    for seed in _SEEDS:
        base = take(batch, seed=seed)
        for row in range(ROWS):
            if moves(row, seed, base, axes):
                alone = (n for n in axes if moves(row, seed, base, {n: axes[n]}))
                return next(alone, next(iter(axes)))
    return None


def _without_rows(call: Call) -> str:
    shape = ", ".join(map(str, call.shapes[0]))
    return (
        f"draws random numbers of shape [{shape}], of which no dimension is that of the rows: the "
        "examples of a batch would share them"
    )


def _refused(passes: Passes, batch: Batch, calls: list[Call], number: int, wrong: str) -> TaskError:
    place = met_at(
        passes, batch, lambda modules: random_calls.sought(passes.device, modules, number)
    )
    remedy = _OF_BLOCKS if place is not None and "(DropBlock" in place else _REMEDY
    return TaskError(
        Reason.MODEL_REFUSED,
        f"{place or 'the model or losses()'}: {calls[number].name} {wrong}; {remedy}",
    )
