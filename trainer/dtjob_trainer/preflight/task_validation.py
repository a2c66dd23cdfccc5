"""Refuse, on synthetic data and before any private read, what would break the guarantee."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import torch

from dtjob_api.ledger import ending
from dtjob_api.ledger.privacy_ledger import MAX_RESULT_BYTES
from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.digest import parameter_digest
from dtjob_trainer.mechanism.per_example import trainable
from dtjob_trainer.mechanism.records.batches import synthetic_examples, to_tensors
from dtjob_trainer.preflight import copies, grad_samples, own_weights, probes, refusals
from dtjob_trainer.preflight.rows import batch_size, checks
from dtjob_trainer.task import (
    Task,
    TaskError,
    shown_in_full,
)
from dtjob_trainer.usercode.passing import may_pass
from dtjob_trainer.usercode.randomness import same_randomness

_ROWS = 4
_TRIED_BEFORE = ", but for what an earlier attempt has tried"
#: Bytes of a result that are not figures: steps, draws, epsilon, two digests.
_REST_OF_RESULT = 512
#: No figure is longer as JSON.
_LONGEST_FIGURE = -2.2250738585072014e-308
#: In the result, beside the figures.
_STEP = "step"


def preflight(
    task: Task,
    device: torch.device | None = None,
    physical_batch_size: int | None = None,
    *,
    whole: bool = True,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Dry-run the task on synthetic data and refuse what Rules 4, 5 and 21 refuse.

    Works on a model of its own, moved off its initial weights; reads no private data. The task's
    own errors are shown in full (Rule 20).

    Parameters
    ----------
    device
        Where to run; the CPU by default.
    physical_batch_size
        P of the run, so that a batch that doesn't fit the memory fails here.
    whole
        Whether all is tried. A later attempt of the same image and task may leave out what takes
        longest: random numbers on two streams, and rows at special values or among P.
    announce
        Called with each part before it is tried: words without digits.

    Raises
    ------
    TaskError
        Names the module or parameter and the remedy.
    """
    place = device if device is not None else torch.device("cpu")
    announce("a pass, and what it asks, writes and keeps")
    model = build_model(task, place)
    copies.check_scripted(model)
    refusals.check_tied(model)
    refusals.check_batch_norm(model)
    refusals.check_embeddings(model)
    refusals.check_state(model)
    probes.move_off_initial_weights(model)
    generator = np.random.default_rng(1)
    batch = to_tensors(synthetic_examples(task.example_spec, _ROWS, generator), place)
    other = to_tensors(synthetic_examples(task.example_spec, _ROWS, generator), place)

    recalled = probes.recall(task, model, other)
    before = probes.state_of(model)
    measured = grad_samples.measured(task, model, batch)
    copies.check_copyable(model)
    refusals.check_written(before, probes.state_of(model))
    refusals.check_structure(
        task, lambda: probes.move_off_initial_weights(build_model(task, place)), batch
    )
    refusals.check_finite(measured)
    refusals.check_seeds_nothing(task, model, batch)
    refusals.check_repeatable(task, model, batch, measured)
    refusals.check_remembers_nothing(recalled, probes.recall(task, model, other))
    announce("the gradients of each example")
    grad_samples.check_reached(task, model, batch, measured)
    by_hooks = grad_samples.check_hooks(task, model, batch)
    rows = physical_batch_size if physical_batch_size is not None else _ROWS // 2
    announce(f"whether rows meet{'' if whole else _TRIED_BEFORE}")
    probes.dry_run(lambda: checks.check_isolated(task, model, place, whole=whole))
    grad_samples.check_per_example_gradients(model, measured, by_hooks)
    announce("as many rows as a process has at once")
    large = to_tensors(synthetic_examples(task.example_spec, rows, generator), place)
    batch_size.check(task, model, batch, large)
    if whole:
        announce("whether rows meet by random numbers or at special values (the longest part)")
        probes.dry_run(lambda: checks.check_whole(task, model, place, rows))


def build_model(task: Task, device: torch.device) -> torch.nn.Module:
    """Make the task's model and move it to `device`.

    Raises
    ------
    TaskError
        It raises, is no module, or its trainable parameters are absent, not float32 or those of
        an earlier call.
    """
    model = probes.dry_run(task.model)
    if not isinstance(model, torch.nn.Module):
        raise TaskError(
            Reason.TASK_INVALID,
            f"Task.model() returned a {type(model).__name__}, not a torch.nn.Module",
        )
    for name, p in model.named_parameters():
        if isinstance(p, torch.nn.parameter.UninitializedParameter) or p.is_meta:
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"parameter {name} has no values yet; run a forward pass or allocate it "
                "before Task.model() returns",
            )
    parameters = trainable(model)
    if not parameters:
        raise TaskError(
            Reason.MODEL_REFUSED, "the model has no trainable parameter; set requires_grad on some"
        )
    for name, p in parameters.items():
        if p.dtype != torch.float32:
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"parameter {name} has dtype {p.dtype}; trainable parameters must be float32 "
                "(call .float() on the model, or freeze the parameter)",
            )
    own_weights.check(model)
    return model.to(device)


def check_evaluates(task: Task, every_steps: int | None) -> None:
    """Refuse a job that asks for evaluations of a task that has none.

    Raises
    ------
    TaskError
    """
    if every_steps is not None and task.evaluate is None:
        raise TaskError(
            Reason.EVALUATION_INVALID,
            f"spec.training.evaluation.everySteps is {every_steps}, but the task has no evaluate: "
            "give Task one, or leave spec.training.evaluation out",
        )


def check_evaluation(task: Task, device: torch.device) -> None:
    """Try `Task.evaluate` on an untrained model of its own, before epsilon is spent on one.

    It reads public data only, so the task's own errors are shown in full (Rule 20).

    Raises
    ------
    TaskError
        It raises, changes the model, its figures are refused by `public_figures`: what a model
        that knows nothing gives has to be a finite number too. Or it gives others after a pass
        over synthetic examples, so that it shows something of what is trained on (Rule 19).
    """
    if task.evaluate is None:
        return
    model = build_model(task, device)
    before = parameter_digest(model.state_dict())
    try:
        figures = public_figures(task, model)
        probes.passes_over_synthetic(task, model, device)
        again = public_figures(task, model)
    except TaskError:
        raise
    except Exception as error:
        if may_pass(error):
            raise
        raise TaskError(
            Reason.EVALUATION_INVALID,
            shown_in_full(
                "Task.evaluate failed on the untrained model",
                error,
                "Correct it; nothing is trained before it works",
            ),
        ) from None
    if parameter_digest(model.state_dict()) != before:
        raise TaskError(
            Reason.EVALUATION_INVALID,
            "Task.evaluate changes the parameters or buffers of the model that it is given; let "
            "it work on a copy.deepcopy of the model",
        )
    if differing := sorted(figures.keys() ^ again.keys()) or _moved(figures, again):
        raise TaskError(
            Reason.EVALUATION_INVALID,
            f"Task.evaluate gives another {differing[0]} after losses() has run, though the model "
            "is the same: its figures are published as those of public data, and would show "
            "something of the records that are trained on. Compute them from the model and public "
            "data alone; what is random of it comes from the global generators",
        )


def public_figures(task: Task, model: torch.nn.Module) -> dict[str, float]:
    """Run `Task.evaluate` on the model in evaluation mode, without gradients (Rule 19).

    It finds the same random numbers each time, and training finds its own unchanged.

    Returns
    -------
    dict
        {name: finite figure}, small enough for the result; empty without `Task.evaluate`.

    Raises
    ------
    TaskError
        It doesn't return a dictionary of finite numbers under names, or one too large. Exceptions
        of the task's own code pass through unchanged; the rank reports its class and place only
        (Rule 20).
    """
    if task.evaluate is None:
        return {}
    mode = model.training
    model.eval()
    try:
        with torch.no_grad(), same_randomness(next(model.parameters()).device):
            figures = task.evaluate(model)
    finally:
        model.train(mode)
    if not isinstance(figures, dict):
        raise TaskError(
            Reason.EVALUATION_INVALID,
            f"Task.evaluate returned a {type(figures).__name__}; return a dict of numbers",
        )
    checked = {_named(name): _figure(name, value) for name, value in figures.items()}
    size = len(json.dumps(dict.fromkeys(checked, _LONGEST_FIGURE)))
    if size > MAX_RESULT_BYTES - _REST_OF_RESULT:
        raise TaskError(
            Reason.EVALUATION_INVALID,
            f"Task.evaluate returned {len(checked)} figures, which take up to {size} bytes; a "
            f"result has room for {MAX_RESULT_BYTES - _REST_OF_RESULT}: return fewer, or under "
            "shorter names",
        )
    return checked


def _moved(figures: dict[str, float], again: dict[str, float]) -> list[str]:
    return [
        name
        for name, figure in sorted(figures.items())
        if not math.isclose(figure, again[name], rel_tol=probes.TOLERANCE)
    ]


def _named(name: object) -> str:
    """The name of a figure, checked; what is none is not shown: it may be anything (Rule 20)."""
    if isinstance(name, str) and ending.is_figures_name(name) and name != _STEP:
        return name
    description = f"a {type(name).__name__}"
    if isinstance(name, str):
        description = f"one of {len(name)} characters"
    if name == _STEP:
        description = f"{_STEP!r}, which dtjob adds"
    raise TaskError(
        Reason.EVALUATION_INVALID,
        f"Task.evaluate returned a figure under a name that is none ({description}); a name is a "
        "string of 1 to 63 letters, digits, '-', '_' and '.', begins and ends with a letter or "
        "digit, and has no 'epsilon' in it",
    )


def _figure(name: str, value: object) -> float:
    """A figure, checked; what is none is not shown: it may be anything (Rule 20)."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
        description = f"a {type(value).__name__}"
    else:
        description = str(number)
    if math.isfinite(number):
        return number
    raise TaskError(
        Reason.EVALUATION_INVALID,
        f"Task.evaluate returned {name}: {description}; every figure must be finite",
    )
