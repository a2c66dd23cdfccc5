"""Whose code is imported."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from dtjob_trainer.usercode import imported
from tests.support.checkout import ROOT


@pytest.mark.rule(20)
def test_every_package_of_ours_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(package).name for package in packages} == imported.OUR_PACKAGES


def test_others_are_folders_of_packages_and_files_of_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(name: str, file: Path | None) -> ModuleType:
        module = ModuleType(name)
        if file is not None:
            file.parent.mkdir(exist_ok=True)
            file.touch()
            module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    before = imported.others()
    loaded("wards", tmp_path / "wards" / "__init__.py").__path__ = [str(tmp_path / "wards")]
    loaded("wards.nets", tmp_path / "wards" / "nets.py")
    loaded("beds", tmp_path / "beds.py")
    loaded("nothing", None)
    loaded("dtjob_trainer.own", tmp_path / "own.py")
    assert set(imported.others()) - set(before) == {tmp_path / "wards", tmp_path / "beds.py"}
    assert not any("site-packages" in str(place) for place in imported.others())


def test_packages_are_found_by_the_names_that_loaded_code_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "beds": "import numpy.linalg, os\ndef model():\n    from sklearn import svm\n",
        "wards": "from . import yaml\nimport dtjob_trainer, absent\n",
        "broken": "import scipy\n(",
        "elsewhere": "import aiohttp\n",
    }
    for name, text in texts.items():
        file = tmp_path / ("other" if name == "elsewhere" else "clinic") / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        module = ModuleType(name)
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "clinic" / "not_loaded.py").write_text("import aiohttp\n")
    assert imported.packages([tmp_path / "clinic"]) == {
        name: importlib.metadata.version(name) for name in ("numpy", "scikit-learn")
    }
    assert imported.packages([]) == {}
