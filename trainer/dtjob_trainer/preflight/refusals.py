"""What the validator refuses, one function for each reason, on synthetic data (Rules 4, 5, 21).

Every function raises `TaskError` with the module's or the parameter's name and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.opacus_hooks import repeats_parameters
from dtjob_trainer.mechanism.watch.structure import Made, ValueAsked, ValueKept
from dtjob_trainer.mechanism.watch.untouched import same, writes_without_noise
from dtjob_trainer.preflight import probes
from dtjob_trainer.task import Task, TaskError, where_in_task
from dtjob_trainer.usercode.holdings import holdings
from dtjob_trainer.usercode.iterators import RANDOM_NUMBERS

_LOOKS = 11  # also of what is done at each tenth call
_SEEN = (
    "count at least one position, mask.sum(1).clamp(min=1), and let softmax see one in any case, "
    "mask | (torch.arange(mask.shape[1], device=mask.device) == 0)"
)


def check_tied(model: torch.nn.Module) -> None:
    """Refuse a trainable parameter of two modules: its hooks count each example twice (Rule 21)."""
    first: dict[int, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if repeats_parameters(model.get_submodule(name.rpartition(".")[0])):
            continue  # aliases, under torch's names, of the parameters of its cells
        if p.requires_grad and first.setdefault(id(p), name) != name:
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"parameters {first[id(p)]} and {name} are tied; give each module its own "
                "(transformers: tie_word_embeddings=False), or register one module once and call "
                "it twice",
            )


def check_batch_norm(model: torch.nn.Module) -> None:
    """Refuse BatchNorm that would mix examples, trainable or not (Rule 21)."""
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.training:
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"module {_module(name)} ({type(module).__name__}) mixes the examples of a batch; "
                "use torch.nn.GroupNorm, or torch.nn.LayerNorm where an example is a vector",
            )


def check_embeddings(model: torch.nn.Module) -> None:
    """Refuse embeddings that rescale what a batch looks up, or its gradients (Rules 6 and 21)."""
    for name, module in model.named_modules():
        which = f"module {_module(name)} ({type(module).__name__})"
        if getattr(module, "max_norm", None) is not None:
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"{which} has max_norm, which rescales the rows that a batch looks up, without "
                "noise: the released weights would tell which; leave max_norm out",
            )
        if getattr(module, "scale_grad_by_freq", False):
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"{which} has scale_grad_by_freq, which divides a word's gradient by how often "
                "the whole batch has it; leave scale_grad_by_freq out",
            )


def check_written(before: probes.State, after: probes.State) -> None:
    """Refuse parameters and buffers that a forward pass changes: no noise is on that (Rule 21)."""
    for name in before | after:
        if name not in before or name not in after or not same(before[name], after[name]):
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"{writes_without_noise(name)}; to normalise, use constants of a public range or "
                "of public data, (x - 50) / 29, or GroupNorm or LayerNorm, within each row",
            )


def check_state(model: torch.nn.Module) -> None:
    """Refuse a `state_dict()` with more in it than parameters and buffers (Rule 21).

    It is what a checkpoint releases. Extra state is watched by nobody.
    """
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for name, value in model.state_dict().items():
        own = tensors.get(name)
        if own is not None and isinstance(value, torch.Tensor) and same(own.detach(), value):
            continue
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"state_dict() of the model has {name}, which is no parameter or buffer of it as it "
            "is: what a pass leaves there would be released without noise; remove "
            "get_extra_state() and hooks that change state_dict()",
        )


def check_remembers_nothing(before: probes.Recalled, after: probes.Recalled) -> None:
    """Refuse what else training leaves behind and evaluation finds: plain attributes (Rule 21)."""
    if not probes.equal_recall(before, after):
        raise TaskError(
            Reason.MODEL_REFUSED,
            "in evaluation mode the model gives other losses after a training pass than before "
            "it, though no parameter changed: it keeps something of the batches that it has seen; "
            "keep no averages or other state between calls",
        )


def check_finite(measured: probes.Measured) -> None:
    """Raise TaskError if a loss or a gradient of synthetic examples is not finite."""
    if not measured.losses.isfinite().all():
        raise TaskError(
            Reason.TASK_INVALID,
            "losses() is not finite on synthetic examples drawn from example_spec; narrow its "
            "ranges to what the data can hold, or make the loss finite on all of it: where a mask "
            f"may hide all of a row, {_SEEN}",
        )
    for name, gradient in measured.gradients.items():
        if gradient is not None and not gradient.isfinite().all():
            raise TaskError(
                Reason.TASK_INVALID,
                f"the gradient of parameter {name} is not finite on synthetic examples drawn from "
                "example_spec; narrow its ranges, or add an epsilon where the model divides and "
                f"below a root; where a mask may hide all of a row, {_SEEN}",
            )


def check_repeatable(
    task: Task,
    model: torch.nn.Module,
    batch: probes.Batch,
    measured: probes.Measured,
) -> None:
    """Refuse state outside buffers that earlier examples could enter (Rule 21)."""
    again = probes.dry_run(lambda: probes.losses_of(task, model, batch)).detach()
    if probes.differing_rows(measured.losses, again):
        raise TaskError(
            Reason.MODEL_REFUSED,
            "the same batch under the same random seed gives other losses the second time: the "
            "model or losses() keeps state between calls; remove it (random numbers must come "
            "from torch's, numpy's or Python's global generator)",
        )


def check_structure(task: Task, build: Callable[[], torch.nn.Module], batch: probes.Batch) -> None:
    """Refuse a pass that branches on values of the batch, makes shapes of them, or keeps them.

    With other random numbers too: behind a coin may be another branch (Rule 21). Nor may anything
    else in the task's objects be another after each pass, or a branch follow from what is trained:
    later, a pass could do what none of these does.

    Parameters
    ----------
    build
        Makes the model: one that has seen a batch may keep nothing of the next.
    """
    model = build()
    # What is kept of a batch that is always the same would not be seen to change.
    turned = {name: tensor.roll(1, 0) for name, tensor in batch.items()}
    kept: dict[str, str] = {}
    for seed in range(_LOOKS):
        try:
            looked = turned if seed % 2 else batch
            probes.dry_run(lambda looked=looked, seed=seed: probes.look(task, model, looked, seed))  # type: ignore[misc]
        except ValueAsked as error:
            raise of_values(error) from None
        except ValueKept as error:
            made = _made_at(task, build(), batch, seed, error.number)
            raise of_values(error, made) from None
        before, kept = kept, holdings(model, task.losses)
        # The first pass may fill caches, which the next ones find filled.
        if seed > 1 and before != kept:
            changed = next(each for each in before | kept if before.get(each) != kept.get(each))
            raise TaskError(Reason.MODEL_REFUSED, _counts(changed))
    try:
        probes.dry_run(lambda: probes.look_at_parameters(task, model, batch))
    except ValueAsked as error:
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"{error.where} asks for values of parameters{where_in_task(error)}: "
            f"{error.question.asked}, so that a later step may compute what no dry run has tried; "
            f"{error.question.remedy}",
        ) from None


def of_values(error: ValueAsked | ValueKept, made: str = "") -> TaskError:
    """Return the refusal of a pass that asks for values of the batch, or keeps something of it.

    Parameters
    ----------
    made
        Where in the task's code it made what it keeps; empty if that is not known.
    """
    place = where_in_task(error) if isinstance(error, ValueAsked) else made
    return TaskError(Reason.MODEL_REFUSED, error.sentence(place))


def _counts(where: str) -> str:
    if where.endswith(RANDOM_NUMBERS):
        return (
            f"{where} moves on with each pass, so that its numbers are known to whoever knows its "
            "seed, and a restart begins anew: take random numbers from torch's global generator, "
            "of shape [rows, ...], which has a secret state at each step"
        )
    return (
        f"{where} is another after each pass, so that a later step may compute what no dry run has "
        "tried, and a restart begins anew: keep no counters or other state between calls (what "
        "losses() needs of a pass, forward returns), and compute the same at each step (of a KL "
        "term a fixed weight, or free bits: kl.clamp(min=0.1))"
    )


def _made_at(
    task: Task, model: torch.nn.Module, batch: probes.Batch, seeds: int, number: int
) -> str:
    """Where in the task's code something is made that the pass under the last seed keeps."""
    if number < len(batch):
        return ""  # the batch itself, which the task's code does not make
    try:
        for seed in range(seeds):
            probes.look(task, model, batch, seed)
        probes.look(task, model, batch, seeds, until=number)
    except Made as made:
        return where_in_task(made)
    except (ValueAsked, ValueKept):
        pass  # it does not do the same again
    return ""


def check_seeds_nothing(task: Task, model: torch.nn.Module, batch: probes.Batch) -> None:
    """Refuse a model or losses that seed a generator: its numbers would be public (Rule 2)."""
    if seeded := probes.dry_run(lambda: probes.seeded(task, model, batch)):
        place = probes.where_seeded(task, model, batch)
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"the model or losses() seeds {' and '.join(seeded)} global generator{place}, so that "
            "each batch gets the same random numbers; leave the seed out, take them as they come",
        )


def _module(name: str) -> str:
    return name or "model"
