"""apt-get runs beside others who install something, and after what an earlier one left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from localcluster.base.errors import CannotRunHere
from localcluster.base.progress import Progress, Stage
from localcluster.install import apt, packages
from localcluster.install.packages import Program
from tests.support.programs import calls, noted

pytestmark = pytest.mark.usefixtures("empty_machine")
HELD = "E: Could not get lock {lock}. It is held by process 812 (unattended-upgr)"
ALSO = "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another ...?"


class Heard(Stage):
    """A stage that remembers each note."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        super().__init__("installing", "")

    def __setattr__(self, name: str, value: object) -> None:
        if name == "note":
            self.notes.append(str(value))
        super().__setattr__(name, value)


def held(machine: Path, lock: str, times: int) -> str:
    """A script that fails so many times on a lock, as apt-get does."""
    said = f'printf "%s\\n" "{HELD.format(lock=lock)}" "{ALSO}" >&2; exit 100'
    return f"[ $(grep -c apt-get {machine}/calls) -gt {times} ] || {{ {said}; }}"


@pytest.mark.parametrize(
    "lock",
    ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"],
)
def test_a_lock_of_somebody_else_is_waited_for_and_its_holder_named(
    machine: Path, lock: str
) -> None:
    noted(machine, "apt-get", held(machine, lock, 2))
    stage = Heard()
    assert apt.install(stage, ["some"]) == ""
    assert f"waiting for process 812 (unattended-upgr) that holds {lock}" in stage.notes
    assert stage.notes[-1] == ""
    assert len(calls(machine)) == 3
    assert all("--option=DPkg::Lock::Timeout=0" in call for call in calls(machine))


def test_a_lock_whose_holder_apt_does_not_name_is_waited_for_too(machine: Path) -> None:
    said = "E: Could not get lock /var/lib/dpkg/lock - open (11: Resource temporarily unavailable)"
    noted(
        machine,
        "apt-get",
        f'[ $(grep -c . {machine}/calls) -gt 1 ] || {{ echo "{said}" >&2; exit 100; }}',
    )
    stage = Heard()
    assert apt.install(stage, ["some"]) == ""
    assert "waiting for the process that holds /var/lib/dpkg/lock" in stage.notes


def test_a_lock_that_is_never_given_up_is_an_error_that_names_its_holder(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "LONGEST_WAIT", 0.2)
    noted(machine, "apt-get", held(machine, "/var/lib/dpkg/lock-frontend", 10**6))
    with pytest.raises(CannotRunHere, match=r"lacks the packages some.* 812 \(unattended-upgr\)"):
        packages.ensure(Progress(Console(quiet=True)), (Program("not-there", "some"),))


@pytest.mark.local_cluster
@pytest.mark.parametrize("lock", ["var/lib/apt/lists/lock", "var/lib/dpkg/lock-frontend"])
def test_the_machines_own_apt_get_names_the_holder_in_these_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    for folder in ("etc/apt", "var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").touch()
    (tmp_path / "apt.conf").write_text(f'Dir "{tmp_path}/";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setattr(apt, "LONGEST_WAIT", 0.0)
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX)"
    script += "; print('held', flush=True); input()"
    argv = [sys.executable, "-c", script, str(tmp_path / lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        complaint = apt.install(Heard(), ["some"])
        holder.communicate(b"\n")
    found = apt._HELD.search(complaint)
    assert found is not None, complaint
    assert found["lock"] == str(tmp_path / lock)
    assert str(found["holder"]).startswith(f"process {holder.pid} (")


def test_what_an_ended_dpkg_left_is_configured_first(machine: Path) -> None:
    said = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct it."
    noted(machine, "dpkg", f": > {machine}/configured")
    noted(machine, "apt-get", f'[ -e {machine}/configured ] || {{ echo "{said}" >&2; exit 100; }}')
    assert apt.install(Heard(), ["some"]) == ""
    assert [call.split()[0] for call in calls(machine)] == ["apt-get", "dpkg", "apt-get"]


@pytest.mark.parametrize("then", [":", "exit 100"], ids=["", "one-source-fails"])
def test_lists_are_fetched_where_they_do_not_have_a_package(machine: Path, then: str) -> None:
    refused = 'echo "E: Unable to locate package some" >&2; exit 100'
    noted(
        machine,
        "apt-get",
        f'case "$*" in *update*) : > {machine}/listed; {then};; esac\n'
        f"[ -e {machine}/listed ] || {{ {refused}; }}",
    )
    assert apt.install(Heard(), ["some"]) == ""
    assert ["update" in call for call in calls(machine)] == [False, True, False]
