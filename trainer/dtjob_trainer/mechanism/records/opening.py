"""What a task's `dataset()` opens, and whether it can be trained on at all.

Whether *one* record is good is told to nobody (Rule 20). But a mistake that all records share would
make a model of noise, and cost its whole epsilon. What they share is their structure: fields,
shapes and dtypes. It is public, as `example_spec` is; so the first record's is compared with that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.records.reading import converts
from dtjob_trainer.mechanism.watch.untouched import ModelWritten, Untouched
from dtjob_trainer.task import ArraySpec, Records, Task, TaskError
from dtjob_trainer.usercode.randomness import same_randomness

#: Classes of libraries that are not imported here: their [i] is a column or a part of one.
_COLUMNS = {
    ("pandas", "DataFrame"): '.to_dict("records")',
    ("pandas", "Series"): ".to_list()",
    ("polars", "DataFrame"): ".to_dicts()",
    ("pyarrow", "Table"): ".to_pylist()",
}
_WHOSE_MAKING_RUNS_NO_TASK_CODE = (list, tuple, torch.Tensor)


def open_records(task: Task, untouched: Untouched, device: torch.device) -> Records:
    """Open the task's private records: the first private read of a run.

    It finds the same random numbers on every rank, so that a split or a shuffle that takes them
    from Python, numpy or torch gives all ranks the same records; training's come from its keys.

    Parameters
    ----------
    untouched
        Of the model that is trained and released: the task must not write its records into it.

    Raises
    ------
    TaskError
        The data set isn't map-style (Rule 3), is empty or has another structure than
        `example_spec`, or the model was changed. Exceptions of `dataset()` pass through unchanged;
        the rank reports their class and place only (Rule 20).
    """
    with same_randomness(device):
        records = task.dataset()
    try:
        untouched.check()
        untouched.check_frozen()
    except ModelWritten as error:
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"Task.dataset() changes {error.tensor} of the model, which is released: what is "
            "computed from private records, such as their mean, would leave without noise. Take "
            "such figures from public data, in Task.model()",
        ) from None
    require_map_style(records)
    require_structure(records, task.example_spec, device)
    return records


def require_map_style(records: Records) -> None:
    """Refuse by its type what has no record under each number, and what is empty.

    Raises
    ------
    TaskError
    """
    if (instead := _instead(records)) is not None:
        raise TaskError(
            Reason.DATASET_INVALID,
            f"Task.dataset() returned a {type(records).__name__}; Poisson sampling needs a "
            f"map-style data set, with len and a record under each [i]: {instead}",
        )
    if len(records) < 1:
        raise TaskError(
            Reason.DATASET_INVALID, "Task.dataset() returned no records; check the data path"
        )


def require_structure(
    records: Records, example_spec: Mapping[str, ArraySpec], device: torch.device
) -> None:
    """Refuse records of which the first has other fields, shapes or dtypes than `example_spec`.

    Nothing is said of its values, and nothing of one that can't be read: that is no structure. Of
    names and lengths only those are told that `example_spec` does not leave open.

    Raises
    ------
    TaskError
    """
    try:
        with same_randomness(device):
            wrong = list(_deviations(records[0], example_spec))
    except Exception:
        return  # bad by itself, as any record may be; it counts as zero
    if wrong:
        raise TaskError(
            Reason.DATASET_INVALID,
            f"the first record of Task.dataset() is not what Task.example_spec says: "
            f"{'; '.join(wrong)}. Correct [i] or example_spec: a record like that contributes "
            "nothing. dtjob check-data tries all records for who may see them",
        )


def _instead(records: object) -> str | None:
    """What to return instead of what is not map-style; None if it is."""
    if isinstance(records, torch.utils.data.IterableDataset):
        return "this is a stream; read it into a list, or into files of which [i] reads one"
    if isinstance(records, Mapping):
        return (
            "[i] of this is what lies under a key, such as a column or a split; return one that "
            'gives {field: array[i]}, such as datasets.Dataset.from_dict(...), or ["train"] of it'
        )
    classes = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(records).__mro__}
    for kind, records_of in _COLUMNS.items():
        if kind in classes:
            return f"[i] of this is no record; return its {records_of}"
    if not (hasattr(records, "__len__") and hasattr(records, "__getitem__")):
        return "this lacks __len__ or __getitem__; return a list, or a class that has both"
    return None


def _deviations(record: Any, example_spec: Mapping[str, ArraySpec]) -> Iterator[str]:
    """What differs, field by field. What code of the task's raises meanwhile passes through."""
    if not has_fields(record):
        yield without_fields(record, example_spec)
        return
    for field, spec in example_spec.items():
        if isinstance(record, Mapping) and field not in record:
            yield f"it lacks the field {field!r}"
            continue
        value = record[field]
        array = _array(value)
        if array is None:
            yield f"{field} is a {type(value).__name__} that numpy makes no array of"
        elif array.shape != spec.shape:
            yield f"{field} has shape {array.shape}, not {spec.shape}"
        elif not converts(array.dtype, spec):
            yield f"{field} has dtype {_kind(array.dtype)}, which is no {spec.dtype}"
        elif _is_unscaled(array.dtype, spec):
            yield (
                f"{field} has dtype {array.dtype}, which holds values beyond the range "
                f"[{spec.low:g}, {spec.high:g}] of this {spec.dtype} field: scale it in [i], or "
                f"convert it there to {spec.dtype} if it needs no scaling"
            )


def without_fields(record: Any, example_spec: Mapping[str, ArraySpec]) -> str:
    """Say what a record is that can't be asked for a field by name, and what is wanted."""
    fields = ", ".join(f"{field!r}: ..." for field in example_spec)
    return f"it is a {type(record).__name__}; [i] has to give {{{fields}}}"


def has_fields(record: Any) -> bool:
    """Whether a record can be asked for a field by name."""
    if isinstance(record, np.ndarray | np.void):
        return record.dtype.names is not None
    if isinstance(record, list | tuple | str | bytes | torch.Tensor):
        return False
    return hasattr(record, "__getitem__")


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        if isinstance(value, _WHOSE_MAKING_RUNS_NO_TASK_CODE):
            return None  # ragged, on a GPU, or with a gradient
        raise


def _kind(dtype: np.dtype[Any]) -> str:
    """The name of a dtype without what it tells of a value: a string's has its length."""
    return dtype.name if dtype.kind in "biufcO" else dtype.type.__name__.rstrip("_")


def _is_unscaled(dtype: np.dtype[Any], spec: ArraySpec) -> bool:
    """Whether these are bytes of pixels or sound where the field has fractions.

    A label may be an integer in a field of floats, and is 32 or 64 bits wide where nobody chose.
    """
    if dtype.kind not in "iu" or dtype.itemsize > 2 or np.dtype(spec.dtype).kind != "f":
        return False
    limits = np.iinfo(dtype)
    return not (spec.low <= limits.min and limits.max <= spec.high)
