"""An image holds every package of ours that its packages import, and its build is given them."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.images import buildah
from tests.support.checkout import ROOT

DOCKERFILES = ["Dockerfile.operator", "Dockerfile.trainer", "tools/standin/Dockerfile"]
_COPIED = re.compile(r"^COPY (\S+) /opt/dtjob/app/", re.M)
_IMPORTED = re.compile(r"^\s*(?:from|import) (dtjob_\w+)", re.M)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_holds_what_is_imported(dockerfile: str) -> None:
    folders = _COPIED.findall((ROOT / dockerfile).read_text())
    imported = {
        name
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        for name in _IMPORTED.findall(file.read_text())
    }
    assert {Path(folder).name for folder in folders} >= imported != set()
    given = (ROOT / ".dockerignore").read_text().splitlines()
    assert [folder for folder in folders if f"!{folder}" not in given] == []


@pytest.mark.parametrize("image", ["operator", "trainer"])
def test_the_images_take_the_cache_that_is_mounted(image: str) -> None:
    dockerfile = (ROOT / f"Dockerfile.{image}").read_text()
    assert buildah.declares_argument(dockerfile, buildah.UV_CACHE_ARGUMENT)
    assert "UV_CACHE_DIR=${UV_CACHE}" in dockerfile


@pytest.mark.parametrize("image", ["operator", "trainer"])
def test_a_checkout_that_only_its_owner_can_read_gives_an_image_that_all_can(
    tmp_path: Path, image: str
) -> None:
    dockerfile = (ROOT / f"Dockerfile.{image}").read_text()
    (command,) = re.findall(r"^RUN (python -m compileall .*)$", dockerfile, re.MULTILINE)
    package = tmp_path / "app" / "package"
    package.mkdir(parents=True)
    (package / "module.py").write_text("value = 1\n")
    (package / "module.py").chmod(0o600)
    package.chmod(0o700)
    command = command.replace("/opt/dtjob/app", str(tmp_path / "app"))
    command = command.replace("python ", f"{sys.executable} ")
    subprocess.run(["sh", "-c", f"umask 077; {command}"], check=True)
    for path in (package, *package.rglob("*")):
        wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        assert path.stat().st_mode & wanted == wanted, path
    assert [*package.rglob("*.pyc")]
