"""By what an attempt says that it makes its draws."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.mechanism.formats import NOISE_FORMAT, SAMPLING_FORMAT
from dtjob_trainer.rank import provenance
from dtjob_trainer.task import load_task
from dtjob_trainer.usercode import sources
from tests.support.gangs.gang_run import GangRun

OTHER = "dtjob_trainer.tasks.digits_cnn:task"
CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    made = trained(GangRun(tmp_path).config(0), entrypoint="dtjob_trainer.tasks.digits:task")
    load_task(made.training.entrypoint, {})
    load_task(OTHER, {})
    return made


def trained(config: WorkerConfig, **changes: Any) -> WorkerConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def digest(config: WorkerConfig, rows: int = 4) -> str | None:
    return provenance.of_attempt(config, CPU, rows).task_digest


@pytest.mark.rule(14)
def test_an_attempt_says_by_what_it_makes_its_draws(config: WorkerConfig) -> None:
    made = provenance.of_attempt(config, CPU, 4)
    assert made.image == config.job.image
    assert made.formats is not None
    assert (made.formats.sampling, made.formats.noise) == (SAMPLING_FORMAT, NOISE_FORMAT)
    assert made.versions is not None
    assert torch.__version__.startswith(made.versions.torch)
    assert made == provenance.of_attempt(config, CPU, 4)


@pytest.mark.rule(14)
def test_versions_are_of_what_is_imported(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("transformers", "torchvision", "peft"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    alone = provenance.of_attempt(config, CPU, 4).versions
    assert alone is not None
    assert (alone.transformers, alone.torchvision, alone.peft) == (None, None, None)
    monkeypatch.setitem(sys.modules, "peft", ModuleType("peft"))
    beside = provenance.of_attempt(config, CPU, 4).versions
    assert beside is not None
    assert beside.peft == importlib.metadata.version("peft")
    assert beside.transformers is None


@pytest.mark.rule(21)
def test_what_a_dry_run_rests_on_is_in_the_digest(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(config)
    image = config.model_copy(update={"job": config.job.model_copy(update={"image": "other"})})
    found = {
        before,
        digest(config, rows=5),
        digest(image),
        digest(trained(config, args={**config.training.args, "width": 9})),
        digest(trained(config, entrypoint=OTHER)),
    }
    monkeypatch.setattr(provenance, "_installed", lambda: ["transformers-6.0.dist-info"])
    found.add(digest(config))
    monkeypatch.setattr(provenance, "_version", lambda _package: "9")
    found.add(digest(config))
    monkeypatch.setattr(sources, "digest", lambda *_: "other")
    found.add(digest(config))
    assert None not in found
    assert len(found) == 8


@pytest.mark.rule(21)
def test_code_that_lies_elsewhere_is_in_the_digest_once_it_is_imported(
    config: WorkerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wards").mkdir()
    files = [
        tmp_path / "wards" / "__init__.py",
        tmp_path / "wards" / "nets.py",
        tmp_path / "beds.py",
    ]
    for file in files:
        file.write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = {digest(config)}
    for name in ("wards", "beds"):
        module = importlib.import_module(name)
        del sys.modules[name]
        monkeypatch.setitem(sys.modules, name, module)
        found.add(digest(config))
    for file in files:
        file.write_text("WIDTH = 4\n")
        found.add(digest(config))
    assert None not in found
    assert len(found) == 6
    assert digest(config) in found


@pytest.mark.rule(21)
def test_a_task_whose_sources_cannot_be_read_has_no_digest(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its dry run is whole in every attempt."""
    assert digest(trained(config, entrypoint="absent:task")) is None
    monkeypatch.setattr(sources, "digest", lambda *_: None)
    assert digest(config) is None
