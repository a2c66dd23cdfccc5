"""By what an attempt says that it makes its draws."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dtjob_api.ledger.privacy_ledger import MAX_PACKAGES, Versions
from dtjob_api.wire.well_known import CONFIG_VARIABLE
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.mechanism.formats import NOISE_FORMAT, SAMPLING_FORMAT
from dtjob_trainer.rank import provenance
from dtjob_trainer.task import load_task
from dtjob_trainer.usercode import imported, sources
from tests.support.checkout import ROOT
from tests.support.gangs.gang_run import GangRun

OTHER = "dtjob_trainer.tasks.digits_cnn:task"
CPU = torch.device("cpu")
PACKAGES = imported.packages


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    made = trained(GangRun(tmp_path).config(0), entrypoint="dtjob_trainer.tasks.digits:task")
    load_task(made.training.entrypoint, {})
    load_task(OTHER, {})
    return made


def trained(config: WorkerConfig, **changes: Any) -> WorkerConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


@pytest.fixture(autouse=True)
def little_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each digest would read these tests, and who owns what they import: most of its time."""
    others = imported.others

    def elsewhere() -> list[Path]:
        return [place for place in others() if not place.is_relative_to(ROOT)]

    monkeypatch.setattr(imported, "others", elsewhere)
    monkeypatch.setattr(imported, "packages", lambda _places: {})


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
def test_packages_are_those_that_the_task_imports(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported, "packages", PACKAGES)
    versions = provenance.of_attempt(config, CPU, 4).versions
    assert versions is not None
    assert f"scikit-learn=={importlib.metadata.version('scikit-learn')}" in versions.packages
    named = [each.partition("==")[0] for each in versions.packages]
    assert named == sorted(set(named))
    assert not {"torch", "numpy", "dtjob", "aiohttp"} & set(named)


@pytest.mark.rule(14)
def test_a_ledger_has_room_for_some_packages(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"p{number:03}": "1" for number in range(99)} | {"long": "1" * 127}
    monkeypatch.setattr(imported, "packages", lambda _places: many)
    versions = provenance.of_attempt(config, CPU, 4).versions
    assert versions is not None
    assert versions.packages == [f"p{number:03}==1" for number in range(MAX_PACKAGES)]
    assert Versions.model_validate(versions.to_dict()) == versions


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
    monkeypatch.setattr(provenance, "_installed", lambda: [("transformers-6.0.dist-info", "")])
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
def test_a_package_that_is_installed_anew_is_in_the_digest_by_its_files(
    config: WorkerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "site" / "wards-1.0.dist-info" / "RECORD"
    record.parent.mkdir(parents=True)
    monkeypatch.syspath_prepend(record.parents[1])
    found = {digest(config)}
    for name in ("a", "b"):
        record.write_text(f"wards/__init__.py,sha256={name},9\n")
        found.add(digest(config))
    assert None not in found
    assert len(found) == 3
    assert digest(config) in found


@pytest.mark.rule(21)
def test_the_environment_is_in_the_digest(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(config)
    for name in ("HOSTNAME", "KUBERNETES_PORT", CONFIG_VARIABLE):
        monkeypatch.setenv(name, "other")
    assert digest(config) == before
    monkeypatch.setenv("WIDTH", "9")
    assert digest(config) not in (before, None)


@pytest.mark.rule(21)
def test_a_task_of_which_something_cannot_be_read_has_no_digest(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its dry run is whole in every attempt."""
    assert digest(trained(config, entrypoint="absent:task")) is None
    with monkeypatch.context() as patched:
        patched.setattr(sources, "digest", lambda *_: None)
        assert digest(config) is None
    assert digest(config) is not None
    (Path(config.state_dir) / "environment.key").unlink()
    (Path(config.state_dir) / "environment.key").mkdir()
    assert digest(config) is None
