"""The keys of one attempt: made fresh, held in memory, never written (Rule 2)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from dtjob_trainer.mechanism.group import Group

KEY_BYTES = 32
_FORMAT = 2  # of the derivation; with it change SAMPLING_FORMAT and NOISE_FORMAT


@dataclass(frozen=True)
class AttemptKeys:
    """AES-256 keys of one attempt; neither shown by `repr` nor picklable (Rule 2).

    Attributes
    ----------
    sampling
        Which records a draw takes.
    order
        In which slots they are.
    noise
        What is added to their sum.
    coins
        The random numbers of model and losses.
    loading
        The random numbers of the data set.
    looks
        At which draws structure is looked at.
    """

    sampling: bytes = field(repr=False)
    order: bytes = field(repr=False)
    noise: bytes = field(repr=False)
    coins: bytes = field(repr=False)
    loading: bytes = field(repr=False)
    looks: bytes = field(repr=False)

    def __post_init__(self) -> None:
        keys = [getattr(self, each.name) for each in fields(self)]
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"an attempt's keys have {KEY_BYTES} bytes each")
        if len(set(keys)) != len(keys):
            raise ValueError("no key of an attempt may serve two purposes")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an attempt's keys never leave the memory of its processes")


def fresh_secret(group: Group) -> bytes:
    """Rank 0 draws 32 bytes from the kernel and broadcasts them in the group (Rule 2)."""
    return group.broadcast_bytes(
        secrets.token_bytes(KEY_BYTES) if group.rank == 0 else None,
        KEY_BYTES,
    )


def derive_keys(secret: bytes, job_uid: str, attempt: int) -> AttemptKeys:
    """Derive the keys of an attempt from its secret (Rule 2).

    HKDF-SHA256 (RFC 5869) without salt, 32 bytes each. The info is the 5 bytes `dtjob`, then, as
    big-endian integers of 8 bytes each, the format 2, the purpose and the attempt, then the job's
    UID in UTF-8. The purposes are 1 sampling, 2 noise, 3 order, 4 coins, 5 loading,
    6 looks.

    Parameters
    ----------
    secret
        32 bytes from the kernel, the same on every rank of the attempt and used for it alone.
    job_uid, attempt
        Bind the keys to their attempt even if two of them were ever given the same secret.
    """
    if len(secret) != KEY_BYTES:
        raise ValueError(f"an attempt's secret has {KEY_BYTES} bytes, not {len(secret)}")

    def derive(purpose: int) -> bytes:
        numbers = (_FORMAT, purpose, attempt)
        info = b"dtjob" + b"".join(n.to_bytes(8, "big") for n in numbers) + job_uid.encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)

    return AttemptKeys(
        sampling=derive(1),
        noise=derive(2),
        order=derive(3),
        coins=derive(4),
        loading=derive(5),
        looks=derive(6),
    )
