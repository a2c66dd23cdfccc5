"""The group of ranks of one attempt, and the few collectives that a private step needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from dtjob_trainer.mechanism.digest import parameter_digest
from dtjob_trainer.usercode.passing import wants_memory

# Collectives of these two wait for every rank or fail; none completes without one (Rule 6).
_BACKENDS = frozenset({"gloo", "nccl"})


class CollectiveFailed(RuntimeError):
    """A collective broke off: another rank has ended, or the way to it is lost."""


class ParametersDiverged(RuntimeError):
    """The ranks don't hold the same model: nothing of this attempt may be published (Rule 6)."""


class Group:
    """All ranks of an attempt, of fixed membership.

    `Group()` is a world of one process and uses no process group; `Group.join` makes a real
    one. Every method that communicates is called by every rank, in the same order (Rule 1), and
    raises `CollectiveFailed` where the collective breaks off. A `ValueError` is the caller's own.

    Attributes
    ----------
    rank, world_size
        0 <= rank < world_size.
    device
        Where this rank's model and buffers live.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self.device = device if device is not None else torch.device("cpu")
        self._group = process_group
        self.rank, self.world_size = 0, 1
        if process_group is not None:
            backend = dist.get_backend(process_group)
            if backend not in _BACKENDS:
                raise ValueError(
                    f"backend {backend!r} may complete a collective without every rank (Rule 6); "
                    f"use {' or '.join(sorted(_BACKENDS))}",
                )
            self.rank = dist.get_rank(process_group)
            self.world_size = dist.get_world_size(process_group)

    @classmethod
    def join(
        cls,
        store: Store,
        rank: int,
        world_size: int,
        device: torch.device,
        timeout: timedelta,
    ) -> Group:
        """Form the group over a store: gloo for CPUs, NCCL for GPUs; a world of one needs none."""
        if world_size == 1:
            return cls(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
        return cls(device, dist.group.WORLD)

    def close(self) -> None:
        """Leave the group."""
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None

    def reduce_scatter(self, flat: torch.Tensor) -> torch.Tensor:
        """Sum `flat[W·n]` over the ranks and return this rank's slice `[n]` (Rule 6)."""
        if flat.numel() % self.world_size:
            raise ValueError(f"{flat.numel()} elements don't divide among {self.world_size} ranks")
        if self._group is None:
            return flat.clone()
        with self._exchange():
            own = torch.empty(flat.numel() // self.world_size, dtype=flat.dtype, device=flat.device)
            dist.reduce_scatter_tensor(own, flat, op=dist.ReduceOp.SUM, group=self._group)
        return own

    def all_gather(self, own: torch.Tensor) -> torch.Tensor:
        """Concatenate every rank's `own[n]` in rank order, `[W·n]`, on every rank."""
        if self._group is None:
            return own.clone()
        with self._exchange():
            whole = torch.empty(own.numel() * self.world_size, dtype=own.dtype, device=own.device)
            dist.all_gather_into_tensor(whole, own.contiguous(), group=self._group)
        return whole

    def broadcast_(self, tensor: torch.Tensor) -> None:
        """Overwrite `tensor` with rank 0's."""
        if self._group is not None:
            with self._exchange():
                dist.broadcast(tensor, group_src=0, group=self._group)

    def broadcast_bytes(self, data: bytes | None, length: int) -> bytes:
        """Return rank 0's `data`; its length is known to every rank."""
        if self.rank == 0 and (data is None or len(data) != length):
            raise ValueError(f"rank 0 must give {length} bytes")
        if self._group is None:
            assert data is not None
            return data
        content = bytearray(data if data is not None and self.rank == 0 else length)
        with self._exchange():
            tensor = torch.frombuffer(content, dtype=torch.uint8).to(self.device)
            self.broadcast_(tensor)
            return tensor.cpu().numpy().tobytes()

    def broadcast_ints(self, values: Sequence[int]) -> list[int]:
        """Return rank 0's integers (64 bits); every rank gives as many."""
        with self._exchange():
            tensor = torch.tensor(list(values), dtype=torch.int64, device=self.device)
            self.broadcast_(tensor)
            return [int(value) for value in tensor.tolist()]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return every rank's `data` in rank order; all of one length."""
        with self._exchange():
            own = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.device)
            whole = self.all_gather(own).cpu().numpy().tobytes()
        return [whole[i : i + len(data)] for i in range(0, len(whole), len(data))]

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Raise whatever breaks off inside as `CollectiveFailed`.

        A GPU reports it when the host waits for the result, so that copies belong to it. Want of
        memory is this rank's own, and so is all that a world of one meets.
        """
        try:
            yield
        except Exception as error:
            if self._group is None or isinstance(error, CollectiveFailed) or wants_memory(error):
                raise
            raise CollectiveFailed(f"{type(error).__name__}: {error}") from error


def share_parameters(model: torch.nn.Module, group: Group) -> None:
    """Give every rank rank 0's parameters and buffers, so that random initial weights agree."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            group.broadcast_(tensor.data)


def agreed_digest(model: torch.nn.Module, group: Group) -> str:
    """Return the `parameter_digest` that all ranks' models share (Rule 6).

    Raises
    ------
    ParametersDiverged
        Two ranks hold different parameters.
    """
    own = parameter_digest(model.state_dict())
    digests = group.gather_bytes(bytes.fromhex(own))
    different = [rank for rank, digest in enumerate(digests) if digest.hex() != own]
    if different:
        raise ParametersDiverged(
            f"rank {group.rank} and ranks {different} hold different parameters after the same "
            "steps: a rank computed wrong or a collective lost data",
        )
    return own
