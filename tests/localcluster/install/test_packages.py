"""Packages are installed once and in one go, and room is asked for before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from localcluster.base.errors import CannotRunHere
from localcluster.base.paths import import_folder
from localcluster.base.progress import Progress
from localcluster.install import packages
from localcluster.install.packages import Program
from localcluster.providers.local import LocalProvider
from tests.support.clusters.kube import wait_for
from tests.support.programs import calls, noted

pytestmark = pytest.mark.usefixtures("empty_machine")


def installing(machine: Path, *names: str) -> str:
    """What apt-get does: these programs are there afterwards."""
    made = "; ".join(f"ln -s /bin/true {machine}/bin/{name}" for name in names)
    return f'case "$*" in *install*) {made};; esac'


@pytest.mark.slow
def test_two_at_once_install_once_and_the_second_says_that_it_waits(
    machine: Path, tmp_path: Path
) -> None:
    made = installing(machine, "one-program")
    noted(machine, "apt-get", f": > {tmp_path}/begun; read line < {tmp_path}/gate; {made}")
    os.mkfifo(tmp_path / "gate")
    script = """if True:
        import os; os.geteuid = lambda: 0
        from localcluster.install import packages
        from localcluster.base.progress import Progress
        packages.ensure(Progress(), (packages.Program("one-program", "some"),))
    """
    both = []
    for number in range(2):
        with (tmp_path / f"said-{number}").open("w") as said:
            environment = os.environ | {"PYTHONPATH": str(import_folder())}
            command = [sys.executable, "-c", script]
            both.append(subprocess.Popen(command, env=environment, stderr=said))

    def waiting() -> list[str]:
        told = "\n".join((tmp_path / f"said-{number}").read_text() for number in range(2))
        return re.findall(r"waiting for another process \(PID \d+\).*", told)

    # The one that waits says so while the other's apt-get still runs.
    wait_for("one waits", waiting, 60)
    assert all("which is installing packages" in line for line in waiting())
    (tmp_path / "gate").write_text("go\n")
    assert [each.wait(timeout=60) for each in both] == [0, 0]
    assert len(calls(machine)) == 1


def test_packages_of_node_and_builder_are_installed_in_one_go(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "NODE_PROGRAMS", (Program("node-program", "node"),))
    monkeypatch.setattr(packages, "IMAGE_PROGRAMS", (Program("image-program", "image"),))
    noted(machine, "apt-get", installing(machine, "node-program", "image-program"))
    said = StringIO()
    provider = LocalProvider("any", Progress(Console(file=said)))
    provider.prepare()
    provider.prepare()
    (call,) = calls(machine)
    assert call.endswith(" image node")
    assert "installing image, node with apt-get" in said.getvalue()


def test_no_room_is_said_before_building(tmp_path: Path) -> None:
    with pytest.raises(CannotRunHere, match=r"building images needs 1000000 GB free and .* has"):
        packages.require_space(tmp_path / "not" / "there", 1_000_000, "building images")
