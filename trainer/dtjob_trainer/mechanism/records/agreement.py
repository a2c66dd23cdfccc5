"""Whether an id means one record: each time it is read, and on all ranks (Rule 3).

A draw is a set of ids. Where an id means one record on this rank and another on that, a record
can be in several ranks' shares of one draw: its sensitivity, and epsilon, would be too low. So it
would where an id means another record the next time, as with a stream behind `[i]`; and where a
record's numbers come from a generator that all reads share, one record more moves those of all
that are read after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.task import ArraySpec, Records, TaskError
from dtjob_trainer.usercode.randomness import same_randomness, seeded_by

#: How many records are compared. Another order of the records moves nearly all of them; labels of
#: a stream, nine in ten alike, and a coin for each record are the same twice in all of so many with
#: a probability of 3 % and of 2⁻³².
_COMPARED = 32
#: Of the norm: what processors of several kinds may make of the same decoding.
_TOLERANCE = 1e-5

Fingerprints = npt.NDArray[np.float64]  # [records, fields, 2]


def agreed_length(records: Records, example_spec: Mapping[str, ArraySpec], group: Group) -> int:
    """Return |D| if an id means the same record everywhere, as far as a few of them show.

    Every rank reads the same ids twice, the second time backwards, and the fingerprints of what it
    found go to all ranks. Random numbers that task code takes from Python's, numpy's or torch's
    global generator are equal for each read.

    Raises
    ------
    TaskError
        On every rank, if any two differ, or a field on a second read of any rank.
    """
    length = len(records)
    if len(set(group.gather_bytes(length.to_bytes(8, "big")))) != 1:
        raise TaskError(
            Reason.DATASET_INVALID,
            "the ranks see different numbers of records; every worker must mount the same data",
        )
    ids = _compared_ids(length)
    _refuse_seeding(records, ids[0], group.device)
    own = _stable_fingerprints(records, example_spec, ids, group.device)
    every = np.stack(
        [np.frombuffer(data).reshape(own.shape) for data in group.gather_bytes(own.tobytes())]
    )
    moved = np.isnan(every)
    if changing := [name for at, name in enumerate(example_spec) if moved[:, :, at].any()]:
        raise TaskError(
            Reason.DATASET_INVALID,
            "the records of Task.dataset() are others each time the same index is read, in "
            f"{', '.join(changing)}: draws would not mean the records that they count, or one "
            "record more would change what is read after it. Give [i] the record number i, "
            "whatever was read before; let what is random of it come from torch's, numpy's or "
            "Python's global generator, which each read finds in a state of its own, or from a "
            "generator that [i] makes of i",
        )
    if not _agree(every):
        raise TaskError(
            Reason.DATASET_INVALID,
            "the ranks see different records under the same index; give Task.dataset() one order "
            "everywhere: sort the files it lists, seed every split and shuffle with a generator of "
            "its own, and mount the same data on every worker",
        )
    return length


def _compared_ids(length: int) -> list[int]:
    ids: list[int] = np.linspace(0, length - 1, min(_COMPARED, length)).astype(int).tolist()
    return ids


def _refuse_seeding(records: Records, index: int, device: torch.device) -> None:
    """Refuse a data set that seeds a generator on a read: that of a step is the keys' (Rule 2).

    Raises
    ------
    TaskError
    """

    def read() -> None:
        with contextlib.suppress(Exception):
            records[index]

    if seeded := seeded_by(read, device):
        raise TaskError(
            Reason.DATASET_INVALID,
            f"reading a record of Task.dataset() seeds {' and '.join(seeded)} global generator: "
            "each record would get the same random numbers in every draw. Take them as they come: "
            "each read finds its own",
        )


def _stable_fingerprints(
    records: Records, example_spec: Mapping[str, ArraySpec], ids: list[int], device: torch.device
) -> Fingerprints:
    """Fingerprints of the records, NaN where a second look gave another one."""

    def read(order: list[int]) -> list[list[tuple[float, float]]]:
        return [_fingerprints(records, example_spec, index, device) for index in order]

    first, second = np.array(read(ids)), np.array(read(ids[::-1])[::-1])
    return np.where((first == second).all(axis=2, keepdims=True), first, np.nan)


def _fingerprints(
    records: Records, example_spec: Mapping[str, ArraySpec], index: int, device: torch.device
) -> list[tuple[float, float]]:
    """A fingerprint for each field; one that can't be read has the same on every rank."""
    with same_randomness(device):
        try:
            record = records[index]
            return [_fingerprint(np.asarray(record[name])) for name in example_spec]
        except Exception:
            return [(0.0, 0.0)] * len(example_spec)


def _fingerprint(value: npt.NDArray[np.generic]) -> tuple[float, float]:
    """The sum of the entries under random signs, and their norm."""
    flat = value.astype(np.float64).reshape(-1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], flat.size)
    with np.errstate(all="ignore"):
        fingerprint = float(flat @ signs), float(np.linalg.norm(flat))
    return fingerprint if np.isfinite(fingerprint).all() else (0.0, 0.0)


def _agree(every: npt.NDArray[np.float64]) -> bool:
    """Whether the ranks' fingerprints [ranks, records, fields, 2] are those of the same records."""
    sums, norms = every[..., 0], every[..., 1]
    allowed = _TOLERANCE * norms.max(axis=0)
    return bool(
        (np.ptp(sums, axis=0) <= allowed).all() and (np.ptp(norms, axis=0) <= allowed).all()
    )
