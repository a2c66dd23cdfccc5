"""How a rank meets the others of its attempt, and takes over what only rank 0 has read."""

from __future__ import annotations

import io
from datetime import timedelta

import torch
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from dtjob_api.ledger.privacy_ledger import LedgerSpec
from dtjob_trainer.mechanism.group import Group, share_parameters
from dtjob_trainer.rank.setup import RankSetup

#: Hangs are ended by the supervisors, never by a collective's own timeout.
_NO_TIMEOUT = timedelta(days=7)


def join(setup: RankSetup, device: torch.device) -> Group:
    """Form the attempt's group over the store; a world of one needs neither."""
    if setup.world_size == 1:
        return Group(device)
    store = TCPStore(
        "127.0.0.1",
        setup.store_port,
        is_master=False,
        wait_for_workers=False,
        timeout=_NO_TIMEOUT,
        use_libuv=False,
    )
    return Group.join(
        PrefixStore(f"attempt-{setup.attempt}", store),
        setup.rank,
        setup.world_size,
        device,
        _NO_TIMEOUT,
    )


def share_spec(spec: LedgerSpec | None, group: Group) -> LedgerSpec:
    """Only rank 0 reads the ledger; it broadcasts the plan to the others."""
    data = spec.model_dump_json(by_alias=True).encode() if spec is not None else None
    return LedgerSpec.model_validate_json(_share_bytes(data, group))


def share_choice(choice: bool, group: Group) -> bool:
    """What rank 0 chose, from what only it has read; the others' own choice is not asked."""
    (chosen,) = group.broadcast_ints([int(choice)])
    return bool(chosen)


def share_training(model: torch.nn.Module, optimizer: torch.optim.Optimizer, group: Group) -> None:
    """Every rank starts from rank 0's weights and optimizer state."""
    share_parameters(model, group)
    if group.world_size == 1:
        return
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    data = _share_bytes(buffer.getvalue() if group.rank == 0 else None, group)
    if group.rank != 0:
        optimizer.load_state_dict(
            torch.load(io.BytesIO(data), map_location=group.device, weights_only=True)
        )


def _share_bytes(data: bytes | None, group: Group) -> bytes:
    (length,) = group.broadcast_ints([len(data) if data is not None else 0])
    return group.broadcast_bytes(data, length)
