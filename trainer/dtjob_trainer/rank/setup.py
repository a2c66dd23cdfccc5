"""What a rank process gets at its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RankSetup:
    """All that a rank process gets at its start; it holds no key."""

    config: str  # WorkerConfig as JSON
    attempt: int
    rank: int
    local_rank: int
    world_size: int
    threads: int
    store_port: int
    """The loopback port of this worker by which the store is reached."""
