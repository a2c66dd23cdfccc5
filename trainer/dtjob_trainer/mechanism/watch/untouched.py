"""Whether anything but the optimizer writes to the model (Rules 6 and 21)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

# Entries at a time: bounds the memory of a checksum.
_CHUNK = 1 << 20
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class ModelWritten(RuntimeError):
    """A tensor of the model was written to where no noise is added.

    Attributes
    ----------
    tensor
        Its name.
    """

    def __init__(self, tensor: str) -> None:
        super().__init__(writes_without_noise(tensor))
        self.tensor = tensor


class Untouched:
    """Sees every write to a model's tensors, by their checksums, and exchanged ones.

    The dry run refuses models that write to themselves on synthetic data; this one sees those
    that do so on other data only, through `.data` or numpy too.

    Parameters
    ----------
    model
        Its buffers and frozen parameters keep the values that they have now: training changes
        none.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._frozen = self._frozen_now()
        self._buffers = self._buffers_now()
        self._trainable = self._trainable_now()

    def begin(self) -> None:
        """Before the first pass of a step: what is trained is now as it has to stay."""
        self._trainable = self._trainable_now()

    def check(self) -> None:
        """After the last pass, before the optimizer: buffers and what is trained.

        Raises
        ------
        ModelWritten
            Names the tensor; nothing of the data.
        """
        _compare(self._trainable, self._trainable_now())
        _compare(self._buffers, self._buffers_now())

    def check_frozen(self) -> None:
        """Before the model is published: all that is not trained, which may be large.

        Raises
        ------
        ModelWritten
        """
        _compare(self._frozen, self._frozen_now())

    def _frozen_now(self) -> dict[str, int]:
        parameters = self._model.named_parameters()
        return _checksums({name: p for name, p in parameters if not p.requires_grad})

    def _buffers_now(self) -> dict[str, int]:
        return _checksums(dict(self._model.named_buffers()))

    def _trainable_now(self) -> dict[str, tuple[int, int]]:
        """Also which tensor it is: the optimizer goes on with the one that it was given."""
        trainable = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        return {name: (id(trainable[name]), it) for name, it in _checksums(trainable).items()}


def _checksums(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return all of them, for which the host waits once."""
    if not tensors:
        return {}
    found = [checksum(tensor) for tensor in tensors.values()]
    together = torch.stack([each.to(found[0].device) for each in found])
    return dict(zip(tensors, together.tolist(), strict=True))


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return Σ (2i + 1)·bᵢ modulo 2⁶⁴ over the bits bᵢ of a tensor's entries, as int64[].

    Another one for any change of one entry: 2i + 1 is odd. A hash would be slower, and nobody
    here writes so as not to be seen.
    """
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    bits = flat.view(_BITS[flat.element_size()])
    weights = 2 * torch.arange(min(_CHUNK, len(bits)), device=bits.device) + 1
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for first in range(0, len(bits), _CHUNK):
        part = bits[first : first + _CHUNK].to(torch.int64)
        total += (part * (weights[: len(part)] + 2 * first)).sum()
    return total


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


def _compare(before: Mapping[str, object], now: Mapping[str, object]) -> None:
    for name in {**before, **now}:
        if now.get(name) != before.get(name):
            raise ModelWritten(name)
