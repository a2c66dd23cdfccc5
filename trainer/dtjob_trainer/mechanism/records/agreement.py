"""Whether an id means one record: each time it is read, and on all ranks (Rule 3).

A draw is a set of ids. Where an id means one record on this rank and another on that, a record
can be in several ranks' shares of one draw: its sensitivity, and epsilon, would be too low. So it
would where an id means another record the next time, as with a stream behind `[i]`.
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

#: How many records are compared. Another order of the records moves nearly all of them; but
#: labels of a stream, nine in ten alike, are only by chance the same twice in all of so many.
_COMPARED = 32
#: Of the norm: what processors of several kinds may make of the same decoding.
_TOLERANCE = 1e-5

Fingerprints = npt.NDArray[np.float64]  # [records, fields, 2]


def agreed_length(records: Records, example_spec: Mapping[str, ArraySpec], group: Group) -> int:
    """Return |D| if an id means the same record everywhere, as far as a few of them show.

    Every rank reads the same ids twice, and the fingerprints of what it found go to all ranks. A
    field that a rank finds different the second time (augmentation with a generator of its own)
    is left out; if that leaves none, nothing shows that the index is looked at. Random numbers
    that task code takes from Python, numpy or torch are equal for each read.

    Raises
    ------
    TaskError
        On every rank, if any two differ, or each field does on a second read.
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
    if not _comparable(every).any():
        raise TaskError(
            Reason.DATASET_INVALID,
            "the records of Task.dataset() are others each time the same index is read, in every "
            "field: draws would not mean the records that they count. Give [i] the record number "
            "i, whatever was read before; let what is random of it come from Python's, numpy's or "
            "torch's global generator",
        )
    if not _agree(every):
        raise TaskError(
            Reason.DATASET_INVALID,
            "the ranks see different records under the same index; give Task.dataset() one order "
            "everywhere: sort the files it lists, seed every split and shuffle with a generator of "
            "its own, and mount the same data on every worker",
        )
    return length


def changing_fields(
    records: Records, example_spec: Mapping[str, ArraySpec], device: torch.device
) -> list[str]:
    """Return the fields that `agreed_length` leaves out, since a second look finds others."""
    own = _stable_fingerprints(records, example_spec, _compared_ids(len(records)), device)
    stable = _comparable(own[None]).tolist()
    return [name for name, is_stable in zip(example_spec, stable, strict=True) if not is_stable]


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
            "each read finds its own; or from a generator of your own",
        )


def _stable_fingerprints(
    records: Records, example_spec: Mapping[str, ArraySpec], ids: list[int], device: torch.device
) -> Fingerprints:
    """Fingerprints of the records, NaN where a second look gave another one."""
    first, second = (
        np.array([_fingerprints(records, example_spec, index, device) for index in ids])
        for _ in range(2)
    )
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


def _comparable(every: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which fields were the same on a second look, in every record and on every rank."""
    return np.asarray(~np.isnan(every).any(axis=(0, 1, 3)))


def _agree(every: npt.NDArray[np.float64]) -> bool:
    """Whether the ranks' fingerprints [ranks, records, fields, 2] are those of the same records."""
    comparable = _comparable(every)
    sums, norms = every[:, :, comparable, 0], every[:, :, comparable, 1]
    allowed = _TOLERANCE * norms.max(axis=0)
    return bool(
        (np.ptp(sums, axis=0) <= allowed).all() and (np.ptp(norms, axis=0) <= allowed).all()
    )
