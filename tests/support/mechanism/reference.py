"""DP-SGD as the design writes it: one process, one example at a time, fp64, no tricks.

Shares no code with dtjob_trainer: AES block by block, normals one by one, gradients one by one.
"""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def word(key: bytes, draw: int, index: int) -> int:
    """64-bit word `index` of a draw's stream."""
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    encrypted = block.update(struct.pack(">QQ", draw, index // 2))
    both: tuple[int, int] = struct.unpack("<QQ", encrypted)
    return both[index % 2]


def drawn(key: bytes, draw: int, records: int, batch_size: int, dataset_size: int) -> list[int]:
    """Ids of a draw at rate batch_size / dataset_size."""
    threshold = batch_size * 2**64 // dataset_size
    return [i for i in range(records) if word(key, draw, i) < threshold]


def read(
    key: bytes, draw: int, records: int, batch_size: int, dataset_size: int, slots: int
) -> list[int]:
    """Ids that a draw reads: of the least words, one a slot, and whatever is drawn beyond."""
    by_word = sorted(range(records), key=lambda i: (word(key, draw, i), i))
    count = len(drawn(key, draw, records, batch_size, dataset_size))
    return sorted(by_word[: max(slots, count)])


def order(key: bytes, draw: int, count: int) -> list[int]:
    """A permutation of range(count), by words of which each has two."""
    return sorted(range(count), key=lambda j: (word(key, draw, j), word(key, draw, 2**63 + j)))


Slot = tuple[int | None, bool]
"""The id of a record, and whether it counts."""


def slots(
    keys: Any, draw: int, records: int, plan: Any, ranks: int, micro_batches: int, rows: int
) -> list[list[list[Slot]]]:
    """What is in each slot, by rank, micro-batch and row; with more micro-batches on overflow."""
    room = ranks * micro_batches * rows
    public = (keys.sampling, draw, records, plan.batch_size, plan.dataset_size)
    counting = set(drawn(*public))
    held: list[Slot] = [(i, i in counting) for i in read(*public, room)]
    held += [(None, False)] * (room - len(held))
    placed = [held[j] for j in order(keys.order, draw, len(held))]
    extra = math.ceil((len(placed) - room) / (ranks * rows))
    placed += [(None, False)] * (room + extra * ranks * rows - len(placed))
    result: list[list[list[Slot]]] = [
        [[(None, False)] * rows for _ in range(micro_batches + extra)] for _ in range(ranks)
    ]
    for s, slot in enumerate(placed):
        first, batches, t = (0, micro_batches, s) if s < room else (micro_batches, extra, s - room)
        result[t // (batches * rows)][first + t // rows % batches][t % rows] = slot
    return result


def normal(key: bytes, draw: int, coordinate: int) -> float:
    """The standard normal of one coordinate."""
    pair = coordinate // 2
    first, angle = (word(key, draw, 2 * pair + i) for i in (0, 1))
    further = [word(key, draw, 2**64 + 2 * pair + i) for i in (0, 1)]
    return from_words(first, angle, *further)[coordinate % 2]


def from_words(w: int, v: int, s: int, t: int) -> tuple[float, float]:
    """Box and Muller from a pair's two words, and two more where the first is near an end."""
    below = min(w, 2**64 - 1 - w)
    below_by = Fraction(1, 2)
    if below < 2**40:
        below_by = Fraction(s, 2**64) + Fraction(2 * t + 1, 2**129)
    share = (below + below_by) / 2**64
    radius = math.sqrt(-2 * (math.log(share) if w < 2**63 else math.log1p(-share)))
    angle = 2 * math.pi * float(Fraction(2 * v + 1, 2**65))
    return radius * math.cos(angle), radius * math.sin(angle)


def grid(noise_multiplier: float, max_grad_norm: float) -> float:
    """The lattice's step."""
    return 2.0 ** (math.floor(math.log2(noise_multiplier * max_grad_norm)) - 30)


def noise(
    key: bytes, draw: int, coordinates: int, noise_multiplier: float, max_grad_norm: float
) -> np.ndarray:
    """What is added to the sum: float64[coordinates]."""
    step = grid(noise_multiplier, max_grad_norm)
    scale = noise_multiplier * max_grad_norm
    return np.array(
        [
            math.floor(Fraction(scale * normal(key, draw, i) / step) + Fraction(1, 2)) * step
            for i in range(coordinates)
        ]
    )


def clipped_gradient(
    task: Any, model: torch.nn.Module, record: Mapping[str, Any], max_grad_norm: float
) -> np.ndarray:
    """One record's clipped gradient in fp64, or zeros if it is not finite."""
    model = copy.deepcopy(model).double()
    batch = {}
    for name, spec in task.example_spec.items():
        tensor = torch.as_tensor(np.asarray(record[name]).astype(spec.dtype))[None]
        batch[name] = tensor.double() if tensor.is_floating_point() else tensor
    parameters = [p for p in model.parameters() if p.requires_grad]
    (loss,) = task.losses(model, batch)
    gradients = torch.autograd.grad(loss, parameters)
    flat = np.concatenate([g.numpy().reshape(-1) for g in gradients])
    norm = math.sqrt(float(np.dot(flat, flat)))
    if not math.isfinite(norm):
        return np.zeros_like(flat)
    return flat * min(1.0, max_grad_norm * (1 - 2**-10) / norm) if norm else flat


def train(
    task: Any,
    plan: Any,
    sampling_key: bytes,
    noise_key: bytes,
    charges: Sequence[int],
    learning_rate: Callable[[int], float],
) -> np.ndarray:
    """Run plain DP-SGD over the given draws and return the flat parameters, fp64."""
    model = task.model().double()
    records = task.dataset()
    parameters = [p for p in model.parameters() if p.requires_grad]
    coordinates = sum(p.numel() for p in parameters)
    sigma, norm = plan.noise_multiplier, plan.max_grad_norm
    for step, draw in enumerate(charges):
        ids = drawn(sampling_key, draw, len(records), plan.batch_size, plan.dataset_size)
        total = np.zeros(coordinates)
        for i in ids:
            total += clipped_gradient(task, model, records[i], norm)
        if sigma:
            total += noise(noise_key, draw, coordinates, sigma, norm)
        mean = torch.from_numpy(total / plan.batch_size)
        start = 0
        with torch.no_grad():
            for p in parameters:
                p.sub_(learning_rate(step) * mean[start : start + p.numel()].view_as(p))
                start += p.numel()
    return np.concatenate([p.detach().numpy().reshape(-1) for p in parameters])
