"""Private data are read in dataset() and not before, when errors would show them (Rule 20)."""

import os
from pathlib import Path

import numpy as np
import pytest

from dtjob_trainer.usercode import data_place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(data_place.VARIABLE, raising=False)
    (tmp_path / "people.csv").write_text("Jane Doe, 555-0100\n")
    with data_place.closed(str(tmp_path)):
        yield tmp_path


READS = {
    "open": Path.open,
    "bytes": lambda file: os.open(os.fsencode(file), os.O_RDONLY),
    "numpy": np.loadtxt,
}


@pytest.mark.rule(20)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_data_are_not_opened_before_dataset(folder, read):
    with pytest.raises(data_place.ReadTooEarly, match="read them in there") as refused:
        read(folder / "people.csv")
    assert "people" not in str(refused.value)
    assert "Jane" not in str(refused.value)


@pytest.mark.rule(20)
def test_no_link_leads_around_it(folder, tmp_path_factory):
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(folder)
    with pytest.raises(data_place.ReadTooEarly):
        (link / "people.csv").open()


def test_what_lies_elsewhere_is_read_and_code_beside_the_data(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere") / "config.json"
    other.write_text("{}")
    assert other.read_text() == "{}"
    (folder.parent / (folder.name + "-2")).write_text("a name that begins like the folder's")
    assert (folder.parent / (folder.name + "-2")).read_text()


def test_code_beside_the_data_is_read(tmp_path):
    (tmp_path / "helper.py").write_text("x = 1")
    with data_place.closed(str(tmp_path)):
        assert (tmp_path / "helper.py").read_text() == "x = 1"


def test_dataset_finds_them(tmp_path, monkeypatch):
    monkeypatch.setenv(data_place.VARIABLE, "of the shell")
    (tmp_path / "people.csv").write_text("Jane Doe")
    with data_place.closed(str(tmp_path)):
        assert data_place.VARIABLE not in os.environ
    data_place.announce(str(tmp_path))
    assert (Path(os.environ[data_place.VARIABLE]) / "people.csv").read_text() == "Jane Doe"


def test_who_looks_too_early_learns_where_to_look(folder):
    with pytest.raises(KeyError) as missed:
        os.environ[data_place.VARIABLE]
    remedy = data_place.remedy(missed.value)
    assert remedy is not None
    assert "when dataset() is called and not before" in remedy
    assert data_place.remedy(KeyError(data_place.VARIABLE)) is None
