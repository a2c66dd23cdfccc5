"""The demo as a program: what it shows, what ends it, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import install
from localcluster.base.progress import Progress
from localcluster.providers import kind
from localcluster.providers.existing import ExistingProvider
from localcluster.providers.protocol import Provider
from tests.support.clusters.kube import wait_for
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def demo(
    tmp_path: Path, patch: str = "demo.LOCAL_RUN = ['false']", call: str = "demo.main()"
) -> Iterator[subprocess.Popen[str]]:
    """The demo as a program in a session of its own, with a local run that ends at once."""
    script = f"import sys; from demo import __main__ as demo; {patch}\nsys.exit({call})"
    (tmp_path / "show.py").write_text(f"if __name__ == '__main__':\n    exec({script!r})\n")
    running = subprocess.Popen(
        [sys.executable, str(tmp_path / "show.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tools"), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        with_group(running, signal.SIGKILL)
        running.communicate()


def with_group(running: subprocess.Popen[str], number: int) -> None:
    """What a terminal does: the signal goes to the whole group."""
    try:
        os.killpg(running.pid, number)
    except ProcessLookupError:
        return


def slow(tmp_path: Path, name: str) -> str:
    """A script that notes its process and takes long."""
    return f"echo $$ > {tmp_path}/{name}.pid; exec sleep 300"


def ended(tmp_path: Path, name: str) -> bool:
    """Whether that process is gone, or a zombie that nobody has waited for yet."""
    try:
        said = Path("/proc", (tmp_path / f"{name}.pid").read_text().strip(), "stat").read_text()
    except OSError:
        return True
    return said.rpartition(")")[2].split()[0] == "Z"


def machine_with_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, create: str
) -> None:
    with_programs(tmp_path, monkeypatch, "kubectl")
    program(tmp_path, "docker", f"[ $1 = build ] || exit 0\n{build}")
    program(tmp_path, "kind", f"[ $1 = create ] || exit 0\n{create}")


def failing_once_the_other_runs(tmp_path: Path, other: str) -> str:
    waiting = f"while ! [ -e {tmp_path}/{other}.pid ]; do sleep 0.1; done"
    return f"{waiting}; echo all is lost >&2; exit 7"


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["build", "create"])
def test_the_demo_tells_a_failure_at_once_and_ends_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    other = {"build": "create", "create": "build"}[fails]
    scripts = {fails: failing_once_the_other_runs(tmp_path, other), other: slow(tmp_path, other)}
    machine_with_kind(tmp_path, monkeypatch, scripts["build"], scripts["create"])
    with demo(tmp_path) as running:
        said, _ = running.communicate(timeout=100)
    assert running.returncode == 1
    assert "all is lost" in said
    assert "Traceback" not in said
    assert ended(tmp_path, other)
    remembered = tmp_path / "cache" / "durations.json"
    assert not remembered.exists() or "demo build" not in json.loads(remembered.read_text())


@pytest.mark.slow
def test_the_demo_installs_packages_before_cluster_and_images_are_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = f"echo begun >> {tmp_path}/order"
    machine_with_kind(tmp_path, monkeypatch, f"{begun}; exit 7", f"{begun}; exit 7")
    patch = (
        "import time; from pathlib import Path; from localcluster.providers import kind\n"
        f"order = Path({str(tmp_path / 'order')!r})\n"
        "def prepare(self): time.sleep(2.0); order.open('a').write('prepared\\n')\n"
        "kind.KindProvider.prepare = prepare; demo.LOCAL_RUN = ['false']"
    )
    with demo(tmp_path, patch) as running:
        running.communicate(timeout=100)
    assert (tmp_path / "order").read_text().splitlines()[:2] == ["prepared", "begun"]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_what_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with_kind(tmp_path, monkeypatch, slow(tmp_path, "build"), slow(tmp_path, "create"))
    with demo(tmp_path) as running:
        for name in ("build", "create"):
            wait_for(name, (tmp_path / f"{name}.pid").exists, 60)
        with_group(running, signal.SIGINT)
        said, _ = running.communicate(timeout=100)
    assert (running.returncode, "Traceback" in said) == (130, False), said
    assert "interrupted" in said
    assert ended(tmp_path, "build")
    assert ended(tmp_path, "create")


STOPS_IN_ORDER = """\
import signal, sys, time
def stop(number, frame):
    time.sleep(1.0)
    print("stopped; go on with --resume", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("training", flush=True)
while True:
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_ctrl_c_lets_the_local_run_stop_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.py").write_text(STOPS_IN_ORDER)
    local = f"demo.LOCAL_RUN = [sys.executable, {str(tmp_path / 'run.py')!r}]; "
    patch = local + "sys.argv = ['demo', '--where=local']"
    with demo(tmp_path, patch) as running:
        assert running.stdout
        while "training" not in running.stdout.readline():
            assert running.poll() is None
        with_group(running, signal.SIGINT)
        said, _ = running.communicate(timeout=100)
    assert said.splitlines()[:1] == ["stopped; go on with --resume"]
    assert (running.returncode, "Traceback" in said) == (130, False), said


def test_what_this_machine_can_not_do_after_all_leads_to_the_local_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As too small a disk, which the builder notices."""
    create = slow(tmp_path, "create")
    machine_with_kind(tmp_path, monkeypatch, "exit 0", create)
    refuse = (
        "from demo import background; from localcluster.base.errors import CannotRunHere\n"
        "def full(provider, console): raise CannotRunHere('building images needs 27 GB free')\n"
        "demo._prepared = full; demo.LOCAL_RUN = ['/bin/echo', 'the local run']"
    )
    with demo(tmp_path, refuse) as running:
        said, _ = running.communicate(timeout=100)
    assert running.returncode == 0
    assert "building images needs 27 GB free\nSo the demo is a run of two local processes" in said
    assert said.rstrip().endswith("the local run")


@pytest.mark.slow
def test_a_failure_of_the_machine_passes_between_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine that went away is CannotRunHere in the builder's process and in the demo's."""
    with_programs(tmp_path, monkeypatch, "kubectl")
    gone = tmp_path / "gone"
    build = slow(tmp_path, "build")
    program(tmp_path, "docker", f"[ -e {gone} ] && exit 1; [ $1 = info ] && exit 0; {build}")
    program(tmp_path, "kind", f"[ $1 = get ] && : > {gone}; exit 0")
    with demo(tmp_path, "demo.LOCAL_RUN = ['/bin/echo', 'the local run']") as running:
        said, _ = running.communicate(timeout=100)
    assert (running.returncode, "the local run" in said) == (0, True), said


@pytest.mark.parametrize(
    ("provider", "words"),
    [("existing", ["delete namespace demo-1", "docs/cluster.md"]), ("kind", ["make demo-down"])],
)
def test_the_demo_says_how_its_traces_are_removed(
    tmp_path: Path, provider: str, words: list[str]
) -> None:
    """On somebody's own cluster without the command that, given twice, deletes every ledger."""
    from demo.__main__ import _tear_down

    kinds: dict[str, Callable[[str, Progress], Provider]]
    kinds = {"existing": ExistingProvider, "kind": kind.KindProvider}
    made = kinds[provider]("a", Progress())
    text = _tear_down(install.Cluster(made, Path("kubectl"), tmp_path), "demo-1")
    assert all(word in text for word in words)
    assert ("demo-down" in text) == (provider == "kind")
    leaves_ledgers = "--selector 'app.kubernetes.io/component!=ledgers'"
    assert text.count("delete -k") == text.count(leaves_ledgers) == (provider == "existing")
