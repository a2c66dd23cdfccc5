"""Refuse a parameter without a gradient for each example, or with a wrong one (Rules 4 and 21).

The reference is a backward pass for each example; a step takes them all at once by Opacus' hooks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointFunction

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.opacus_hooks import failed_in, has_sampler
from dtjob_trainer.mechanism.per_example import GradientUnreached
from dtjob_trainer.preflight import probes
from dtjob_trainer.task import Task, TaskError, where_in_task
from dtjob_trainer.usercode.passing import may_pass

_REPLACEMENTS = {
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "RNN": "opacus.layers.DPRNN",
    "LSTMCell": "opacus.layers.dp_rnn.DPLSTMCell, with bias=True,",
    "GRUCell": "opacus.layers.dp_rnn.DPGRUCell, with bias=True,",
    "RNNCell": "opacus.layers.dp_rnn.DPRNNCell, with bias=True,",
    "MultiheadAttention": (
        "attention made of Linear layers, as that of docs/writing-a-task.md#attention, also "
        "within TransformerEncoderLayer (opacus.layers.DPMultiheadAttention is right with "
        "batch_first=True and a single query, and takes heads for positions with more),"
    ),
    "EmbeddingBag": (
        "torch.nn.Embedding, and .sum(1), .mean(1) or .amax(1) of what it looks up, with a mask "
        "where there is padding,"
    ),
    "Bilinear": (
        "torch.nn.Linear(in1_features * in2_features, out_features), called on "
        "(x[:, :, None] * y[:, None]).flatten(1),"
    ),
}
# Their layers have parameters for themselves; these classes have none of their own.
_LIBRARIES = ("opacus.", "torch.")
_EMPTY = ("torch.nn.modules.container", "torch.nn.modules.module")


class _Reentrant(Exception):
    """Activations are checkpointed by a backward pass within the backward pass."""


def measured(task: Task, model: torch.nn.Module, batch: probes.Batch) -> probes.Measured:
    """Take the reference; refuse what has no backward pass for each example.

    Raises
    ------
    TaskError
        Also the task's own error, shown in full (Rule 20).
    """

    def measure() -> probes.Measured:
        try:
            return probes.measure(task, model, batch)
        except RuntimeError as error:
            if "use_reentrant" in str(error):
                raise _reentrant(task, model, batch) from None
            raise

    return probes.dry_run(measure)


def check_reached(
    task: Task, model: torch.nn.Module, batch: probes.Batch, measured: probes.Measured
) -> None:
    """Refuse a trainable parameter that no loss depends on (Rule 4)."""
    unreached = _unreached(measured)
    if not unreached:
        return
    with _checkpoints(lambda run, _preserve, *inputs: run(*inputs)):
        without = _unreached(probes.measure(task, model, batch))
    if without != unreached:
        raise _reentrant(task, model, batch)
    raise TaskError(
        Reason.MODEL_REFUSED,
        f"no loss depends on the trainable parameter {', '.join(unreached[:5])}; freeze it "
        "(requires_grad=False) or use it, and where layers are left out at random (LayerDrop) "
        "keep them all: layerdrop=0",
    )


def check_hooks(task: Task, model: torch.nn.Module, batch: probes.Batch) -> probes.Gradients:
    """Return each example's gradient as a step takes it; refuse where there are none (Rule 4)."""
    try:
        return probes.per_example_gradients(task, model, batch)
    except GradientUnreached as error:
        raise TaskError(Reason.MODEL_REFUSED, str(error)) from None
    except Exception as error:
        if may_pass(error):
            raise
        raise TaskError(Reason.MODEL_REFUSED, _no_sampler(model, error)) from None


def check_per_example_gradients(
    model: torch.nn.Module, measured: probes.Measured, by_hooks: probes.Gradients
) -> None:
    """Refuse a module whose hooks don't give each example's true gradient (Rules 4 and 21)."""
    scale = measured.gradient_scale
    for name, true in measured.gradients.items():
        gradient = by_hooks[name]
        if true is None:
            continue
        if gradient is None or probes.differing_rows(true, gradient, scale):
            owner, _, own = name.rpartition(".")
            module = model.get_submodule(owner)
            kind = type(module).__name__
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"the per-example gradients of parameter {name} in module {owner or 'model'} "
                f"({kind}) are wrong or incomplete: its weights are used outside its forward "
                "(functional use), its inputs are given by name or don't have the batch first, a "
                "gradient is differentiated once more (create_graph=True), or Opacus doesn't "
                f"support it{_own_module(own) if _is_free(module) else _replacement(module)}",
            )


def _unreached(measured: probes.Measured) -> list[str]:
    return [name for name, gradient in measured.gradients.items() if gradient is None]


@contextlib.contextmanager
def _checkpoints(apply: Callable[..., Any]) -> Iterator[None]:
    """Let what is checkpointed so run otherwise."""
    CheckpointFunction.apply = apply
    try:
        yield
    finally:
        del CheckpointFunction.apply  # torch's own is inherited


def _reentrant(task: Task, model: torch.nn.Module, batch: probes.Batch) -> TaskError:
    def apply(*_: object) -> None:
        raise _Reentrant

    place = ""
    try:
        with _checkpoints(apply):
            probes.losses_of(task, model, batch)
    except Exception as error:  # `_Reentrant`, or what the task's code makes of it
        place = where_in_task(error)
    return TaskError(
        Reason.MODEL_REFUSED,
        f"activations are checkpointed{place} with use_reentrant=True, whose backward pass is one "
        "of its own, in which no example's gradient is found: give torch.utils.checkpoint "
        "use_reentrant=False (transformers: gradient_checkpointing_enable("
        'gradient_checkpointing_kwargs={"use_reentrant": False}))',
    )


def _no_sampler(model: torch.nn.Module, error: Exception) -> str:
    """Name the module that Opacus failed at, or those that it has no hand-written sampler for."""
    suspects: dict[str, torch.nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if not has_sampler(module)
        and any(p.requires_grad for p in module.parameters(recurse=False))
    }
    culprit = failed_in(error)
    failed = suspects
    if culprit is not None:
        failed = {name: module for name, module in model.named_modules() if module is culprit}
    where = _named(failed) or "a module"
    if "called random operation" in str(error):
        blocks = {name: module for name, module in failed.items() if _has_children(module)}
        return (
            f"module {_named(blocks) or where} has parameters of its own beside "
            "layers that draw random numbers: their gradients are found by running all of it "
            "again, with other numbers. Put these parameters into a module of their own, freeze "
            "them, or draw none there (dropout=0.0, attention_dropout=0.0, "
            "stochastic_depth_prob=0.0, drop_path_rate=0.0)"
        )
    # Those that did not fail yet will, once the others are mended.
    replaced = {_replacement(module): None for module in (failed | suspects).values()}
    free = [
        name
        for owner, module in failed.items()
        # Where it is not known which has failed, one without layers may be that module already.
        if _is_free(module) and (module is culprit or not owner or _has_children(module))
        for name, p in module.named_parameters(recurse=False)
        if p.requires_grad
    ]
    frozen = "".join(_frozen(name, module) for name, module in failed.items())
    remedies = "".join(replaced) + (frozen or (_own_module(free[0]) if free else ""))
    beginning = f"Opacus can't give per-example gradients of module {where}"
    if all(map(_replacement, failed.values())):
        return beginning + remedies
    return (
        f"{beginning}: {type(error).__name__}: {error}{remedies}; use layers "
        "that Opacus supports, with one tensor in, given by position, not by name, and one out, "
        "and keep buffers and trainable parameters in separate modules"
    )


def _named(modules: Mapping[str, torch.nn.Module]) -> str:
    return ", ".join(f"{name or 'model'} ({type(it).__name__})" for name, it in modules.items())


def _has_children(module: torch.nn.Module) -> bool:
    return any(True for _ in module.children())


def _is_free(module: torch.nn.Module) -> bool:
    """Whether a module is none of a library's layers, nor derives from one."""
    return not any(
        kind.__module__.startswith(_LIBRARIES) and kind.__module__ not in _EMPTY
        for kind in type(module).__mro__
    )


def _own_module(parameter: str) -> str:
    return (
        f"; put {parameter} into a module of its own, which is called in the model's forward on a "
        f"tensor of the batch: def forward(self, x): return self.{parameter}.expand(len(x), "
        f"*self.{parameter}.shape)"
    )


def _replacement(module: torch.nn.Module) -> str:
    """What to use instead of a layer, or of one that derives from it."""
    kinds = (kind.__name__ for kind in type(module).__mro__)
    known = next((kind for kind in kinds if kind in _REPLACEMENTS), None)
    return f"; use {_REPLACEMENTS[known]} instead of {known}" if known else ""


def _frozen(name: str, module: torch.nn.Module) -> str:
    """What helps a layer that has buffers beside trained weights, as MADE's masked ones do."""
    own = [
        buffer
        for buffer, values in module.named_buffers(recurse=False)
        if values.is_floating_point() or values.dtype is torch.bool
    ]
    if not own:
        return ""
    return (
        f"; {name or 'the model'} has the buffer {own[0]} beside them: make it a parameter that "
        f"isn't trained, self.{own[0]} = torch.nn.Parameter({own[0]}.float(), requires_grad=False)"
    )
