"""A digest by which one model's parameters are told from another's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def parameter_digest(model: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hex, over names, types, shapes and bytes of a model's state, by name."""
    digest = hashlib.sha256()
    for name in sorted(model):
        tensor = model[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
