"""Whether anything but the optimizer writes to the model (Rules 6 and 21)."""

from __future__ import annotations

import torch


class ModelWritten(RuntimeError):
    """A pass over private records wrote to the model: that write has no noise."""


class Untouched:
    """Sees in-place writes and exchanged tensors, by torch's own count of writes to each.

    The dry run refuses models that write to themselves on synthetic data; this one sees those
    that do so on other data only.

    Parameters
    ----------
    model
        Its buffers keep the values that they have now: training changes none.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._before = _writes(model)

    def begin(self) -> None:
        """Before the first pass of a step."""
        self._before = _writes(self._model)

    def check(self) -> None:
        """After the last pass, before the optimizer.

        Raises
        ------
        ModelWritten
            Names the tensor; nothing of the data.
        """
        now = _writes(self._model)
        if now == self._before:
            return
        changed = [name for name in now | self._before if now.get(name) != self._before.get(name)]
        buffers = dict(self._model.named_buffers())
        for name in changed:
            both = name in self._buffers and name in buffers
            if both and same(self._buffers[name], buffers[name]):
                continue  # written anew with what it was
            raise ModelWritten(writes_without_noise(name))


def writes_without_noise(name: str) -> str:
    """What is wrong with a model that writes to one of its tensors, and the remedy."""
    owner, _, last = name.rpartition(".")
    return (
        f"module {owner or 'model'} changes {last} while it computes, which would release data "
        "without noise; let the optimizer alone change the model (track_running_stats=False, no "
        "max_norm, no averages kept in buffers or parameters)"
    )


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal, NaN to NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_floating_point():
        one, other = one.nan_to_num(), other.nan_to_num()
    return torch.equal(one, other)


def _writes(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """For each tensor of the model: which one it is, and how often it was written in place."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(tensor), tensor._version) for name, tensor in tensors}
