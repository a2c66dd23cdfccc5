"""Rules 3, 20 and 21: what dataset() opens, and what of it is told."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.records.opening import open_records, require_structure
from dtjob_trainer.mechanism.watch.untouched import Untouched
from dtjob_trainer.task import ArraySpec, TaskError
from tests.support.mechanism.models import FEATURES, Records, linear, make_task, rows

CPU = torch.device("cpu")


def opened(records: Any) -> Any:
    return open_records(make_task(records=records), Untouched(linear()), CPU)


class Stream(IterableDataset[Any]):
    """One that knows how many will come."""

    def __iter__(self) -> Iterator[Any]:
        return iter([GOOD] * 64)

    def __len__(self) -> int:
        return 64


def of_a_library(module: str, name: str) -> Any:
    """What stands for a class of a library that is not installed, as a user might derive it."""
    kind = type(name, (list,), {"__module__": f"{module}.core.frame"})
    return type("Own", (kind,), {})([{"x": 0}])


NO_DATA_SETS = {
    "generator": (iter(()), "__len__ or __getitem__"),
    "IterableDataset": (Stream(), "stream"),
    "dict of columns": (rows(), "column"),
    "pandas.DataFrame": (of_a_library("pandas", "DataFrame"), r'Own.*\.to_dict\("records"\)'),
    "polars.DataFrame": (of_a_library("polars", "DataFrame"), r"\.to_dicts\(\)"),
    "pyarrow.Table": (of_a_library("pyarrow", "Table"), r"\.to_pylist\(\)"),
    "nothing": ([], "no records"),
}


@pytest.mark.rule(3)
@pytest.mark.parametrize("name", NO_DATA_SETS)
def test_what_is_not_map_style_is_refused_by_its_type(name: str) -> None:
    records, words = NO_DATA_SETS[name]
    with pytest.raises(TaskError, match=words) as caught:
        opened(records)
    assert caught.value.reason is Reason.DATASET_INVALID
    assert type(records).__name__ in caught.value.message or name == "nothing"


def test_what_has_records_of_its_fields_is_taken() -> None:
    arrays = rows(3)
    x, y = arrays["x"], arrays["y"]
    structured = np.zeros(3, dtype=[("x", np.float32, FEATURES), ("y", np.int64)])
    listed = [{"x": list(map(float, x[i])), "y": int(y[i]), "name": "JANE"} for i in range(3)]
    for records in (Records(arrays), structured, listed, tuple(listed)):
        assert len(opened(records)) == 3


GOOD = {"x": np.zeros(FEATURES, np.float32), "y": 0}
Row = namedtuple("Row", "x y")

OTHER_STRUCTURES = {
    "a tuple": ((GOOD["x"], 0), "it is a tuple; [i] has to give {'x': ..., 'y': ...}"),
    "a named tuple": (Row(GOOD["x"], 0), "it is a Row;"),
    "an array": (np.zeros(FEATURES + 1), "it is a ndarray;"),
    "nothing": (None, "it is a NoneType;"),
    "a field less": ({"x": GOOD["x"], "JANE": 0}, "it lacks the field 'y'. "),
    "another shape": ({**GOOD, "x": np.zeros((2, 3))}, "x has shape (2, 3), not (6,)"),
    "floats for integers": ({**GOOD, "y": 0.0}, "y has dtype float64, which is no int64"),
    "text": ({**GOOD, "x": ["JANE DOE"] * FEATURES}, "x has dtype str, which is no float32"),
    "objects": ({**GOOD, "y": {}}, "y has dtype object, which is no int64"),
    "ragged": ({**GOOD, "x": [[0.0], [0.0, 0.0]]}, "x is a list that numpy makes no array of"),
    "pixels": ({**GOOD, "x": np.zeros(FEATURES, np.uint8)}, "scale it in [i]"),
    "sound": ({**GOOD, "x": np.zeros(FEATURES, np.int16)}, "range [-1, 1] of this float32 field"),
    "two mistakes": ({"x": 0.0, "y": "JANE"}, "x has shape (), not (6,); y has dtype str"),
}


@pytest.mark.rule(20)
@pytest.mark.parametrize("name", OTHER_STRUCTURES)
def test_a_first_record_of_another_structure_is_refused_by_that_alone(name: str) -> None:
    record, words = OTHER_STRUCTURES[name]
    with pytest.raises(TaskError) as caught:
        opened([record, GOOD])
    assert caught.value.reason is Reason.DATASET_INVALID
    assert words in caught.value.message
    assert "JANE" not in caught.value.message
    assert "dtjob check-data" in caught.value.message
    assert len(opened([GOOD, record])) == 2  # of any other nothing is said


def test_a_data_set_of_tensors_gives_tuples() -> None:
    arrays = rows(2)
    tensors = TensorDataset(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
    with pytest.raises(TaskError, match="it is a tuple"):
        opened(tensors)


class Torn:
    """A value that is decoded when it is made an array, as an image of PIL's."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise ValueError("JANE DOE")


class Lazy(dict[str, Any]):
    def __getitem__(self, field: str) -> Any:
        raise KeyError("JANE DOE")


BAD_BY_THEMSELVES = {
    "not finite": {**GOOD, "x": np.full(FEATURES, np.nan)},
    "out of range": {**GOOD, "x": np.full(FEATURES, 99.0), "y": 99},
    "torn": {**GOOD, "x": Torn()},
    "decoded by name": Lazy(GOOD),
}


@pytest.mark.rule(20)
@pytest.mark.parametrize("name", BAD_BY_THEMSELVES)
def test_nothing_is_told_of_a_first_record_that_is_bad_by_itself(name: str) -> None:
    assert len(opened([BAD_BY_THEMSELVES[name]])) == 1


@pytest.mark.parametrize(
    ("dtype", "low", "high", "taken"),
    [
        (np.uint8, 0, 255, True),
        (np.uint8, 0, 1, False),
        (np.uint16, 0, 255, False),
        (np.int8, -128, 127, True),
        (np.int64, 0, 1, True),  # a label
        (np.bool_, 0, 1, True),
        (np.float64, 0, 1, True),
    ],
)
def test_narrow_integers_are_taken_for_floats_where_all_of_them_fit(
    dtype: type, low: float, high: float, *, taken: bool
) -> None:
    records: Any = [{"v": np.zeros(2, dtype)}]
    spec = {"v": ArraySpec((2,), "float32", low, high)}
    if taken:
        require_structure(records, spec, CPU)
    else:
        with pytest.raises(TaskError, match="scale it"):
            require_structure(records, spec, CPU)


def test_narrow_integers_are_taken_for_labels() -> None:
    require_structure([{"v": np.uint8(3)}], {"v": ArraySpec((), "int64", 0, 9)}, CPU)


def normalised(how):
    """A task whose dataset() stores the mean of its records in the model."""
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, 3), torch.nn.Linear(3, 3))
    model[0].register_buffer("mean", torch.zeros(FEATURES))
    model[1].requires_grad_(False)

    def dataset():
        records = Records(rows())
        with torch.no_grad():
            how(model, torch.from_numpy(records.arrays["x"].mean(0)))
        return records

    return replace(make_task(), dataset=dataset), model


WRITES = {
    "0.mean": lambda model, mean: model[0].mean.copy_(mean),
    "0.mean, exchanged": lambda model, mean: setattr(model[0], "mean", mean),
    "0.bias": lambda model, mean: model[0].bias.data.fill_(float(mean[0])),
    "1.bias": lambda model, mean: model[1].bias.numpy().fill(float(mean[0])),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", WRITES)
def test_dataset_writes_nothing_into_the_model(name):
    task, model = normalised(WRITES[name])
    with pytest.raises(TaskError, match=f"dataset.. changes {name.partition(',')[0]} of") as caught:
        open_records(task, Untouched(model), CPU)
    assert caught.value.reason is Reason.MODEL_REFUSED
