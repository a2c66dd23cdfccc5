"""The keys of one attempt: made fresh, held in memory, never written (Rule 2)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from dtjob_trainer.mechanism.group import Group

KEY_BYTES = 32


@dataclass(frozen=True)
class AttemptKeys:
    """AES-256 keys of one attempt; neither shown by `repr` nor picklable (Rule 2)."""

    sampling: bytes = field(repr=False)
    noise: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.sampling) != KEY_BYTES or len(self.noise) != KEY_BYTES:
            raise ValueError(f"an attempt's keys have {KEY_BYTES} bytes each")
        if self.sampling == self.noise:
            raise ValueError("the sampling key and the noise key must differ")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an attempt's keys never leave the memory of its processes")


def fresh_secret(group: Group) -> bytes:
    """Rank 0 draws 32 bytes from the kernel and broadcasts them in the group (Rule 2)."""
    return group.broadcast_bytes(
        secrets.token_bytes(KEY_BYTES) if group.rank == 0 else None,
        KEY_BYTES,
    )


def derive_keys(secret: bytes, job_uid: str, attempt: int) -> AttemptKeys:
    """Derive the sampling and the noise key of an attempt from its secret (Rule 2).

    HKDF-SHA256 (RFC 5869) without salt, 32 bytes each, with the info strings
    `dtjob/1/<purpose>/<job_uid>/<attempt>` in UTF-8; the purposes are `sampling` and
    `noise`, the attempt is written in decimal.

    Parameters
    ----------
    secret
        32 bytes from the kernel, the same on every rank of the attempt and used for it alone.
    job_uid, attempt
        Bind the keys to their attempt even if two of them were ever given the same secret.
    """
    if len(secret) != KEY_BYTES:
        raise ValueError(f"an attempt's secret has {KEY_BYTES} bytes, not {len(secret)}")

    def derive(purpose: str) -> bytes:
        info = f"dtjob/1/{purpose}/{job_uid}/{attempt}".encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)

    return AttemptKeys(sampling=derive("sampling"), noise=derive("noise"))
