"""How a checkpoint's fields become a file's bytes and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    import torch


class Format(Protocol):
    """How a checkpoint's fields become a file's bytes and back, and how models are told apart."""

    def write(self, payload: Mapping[str, Any], file: BinaryIO) -> None:
        """Write what `read` returns."""
        ...

    def read(self, file: BinaryIO) -> dict[str, Any]:
        """Return all fields."""
        ...

    def digest(self, model: Mapping[str, torch.Tensor]) -> str:
        """Return what is equal for equal models alone, in hexadecimal digits."""
        ...


class TorchFormat:
    """torch's own, read back with `weights_only=True`: a file of a volume runs no code."""

    def write(self, payload: Mapping[str, Any], file: BinaryIO) -> None:
        """Write what `read` returns; an error of the file's is hidden behind torch's own."""
        import torch

        torch.save(dict(payload), file)

    def read(self, file: BinaryIO) -> dict[str, Any]:
        """All fields, tensors on the CPU; torch raises anything here, KeyError to RuntimeError."""
        import torch

        payload: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return payload

    def digest(self, model: Mapping[str, torch.Tensor]) -> str:
        """See `parameter_digest`."""
        from dtjob_trainer.mechanism.digest import parameter_digest

        return parameter_digest(model)
