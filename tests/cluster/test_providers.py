"""Which way to a cluster is taken, what it calls, and what a person is told."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from demo import install
from localcluster import choose, engine
from localcluster.cli import app
from localcluster.errors import CannotRunHere, ClusterError
from localcluster.progress import Progress
from localcluster.providers import kind
from localcluster.providers.base import Provider
from localcluster.providers.existing import ExistingProvider
from tests.support.clusters.kube import wait_for

pytestmark = pytest.mark.usefixtures("empty_machine")
ROOT = Path(__file__).resolve().parents[2]


def without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def program(tmp_path: Path, name: str, script: str = "exit 0") -> None:
    file = tmp_path / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def with_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A machine with the usual tools and, of those that matter, these."""
    for name in names:
        program(tmp_path, name)
    for tool in ("cat", "sleep", "sh"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    without_programs(tmp_path, monkeypatch)


def test_no_provider_says_why_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(CannotRunHere) as refused:
        choose.provider("any", choose.Choice.AUTO, Progress())
    message = str(refused.value)
    assert "existing: DTJOB_KUBECONFIG is not set" in message
    assert "kind: no Docker or Podman engine answers" in message
    assert "local: pause v1 has to be built (pause) and there is no Go" in message
    assert "https://go.dev/dl/" in message


def test_without_root_local_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotRunHere, match="local: a cluster of real binaries needs root"):
        choose.provider("any", choose.Choice.LOCAL, Progress())


def test_a_kubeconfig_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTJOB_KUBECONFIG", str(tmp_path / "config"))
    chosen = choose.provider("any", choose.Choice.AUTO, Progress())
    assert chosen.kind == "existing"
    with pytest.raises(ClusterError, match="which is not a file"):
        chosen.kubeconfig()


def test_an_engine_that_answers_means_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    for name, code in (("docker", 1), ("podman", 0), ("kind", 0), ("kubectl", 0)):
        program(tmp_path, name, f"exit {code}")
    assert choose.provider("any", choose.Choice.AUTO, Progress()).kind == "kind"
    assert engine.find() == "podman"


def test_the_command_shows_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_programs(tmp_path, monkeypatch)
    result = CliRunner().invoke(app, ["up", "--provider", "kind"])
    assert result.exit_code == 1
    assert "error: no cluster can run here: kind: no Docker or Podman engine" in result.output
    assert "Traceback" not in result.output
    bad = CliRunner().invoke(app, ["up", "--name", "No_Name", "--provider", "kind"])
    assert "'No_Name' can't be the name of a cluster" in bad.output


def test_kind_command_lines(tmp_path: Path) -> None:
    config = tmp_path / "config"
    assert kind.create_argv("dtjob-a", config) == (
        f"kind create cluster --name=dtjob-a --wait=120s --kubeconfig={config}".split()
    )
    assert kind.delete_argv("dtjob-a", config) == (
        f"kind delete cluster --name=dtjob-a --kubeconfig={config}".split()
    )
    assert kind.export_argv("dtjob-a", config) == (
        f"kind export kubeconfig --name=dtjob-a --kubeconfig={config}".split()
    )
    assert kind.load_argv("dtjob-a", tmp_path / "x.tar") == (
        f"kind load image-archive {tmp_path}/x.tar --name=dtjob-a".split()
    )


def test_engine_build_command_line() -> None:
    argv = engine.build_argv(
        "docker", "a", Path("D"), Path("."), {"B": "2", "A": "1"}, Path("/tmp/identifier")
    )
    assert argv[:2] == ["docker", "build"]
    assert argv[2:] == [
        "--iidfile=/tmp/identifier",
        "--tag=localhost/dtjob/a",
        "--file=D",
        "--build-arg=A=1",
        "--build-arg=B=2",
        ".",
    ]


def test_kind_goes_through_its_life_with_the_programs_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    for name in ("docker", "kind"):
        program(
            tmp_path,
            name,
            f'echo "{name} $*" >> {calls}\n'
            'for a; do case "$a" in --iidfile=*) echo sha256:0123456789abcdef > "${a#*=}";; esac\n'
            "done",
        )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    provider = kind.KindProvider("a", Progress())
    provider.up()
    image = provider.build_image("trainer", tmp_path / "Dockerfile", tmp_path, {})
    assert provider.load_image(image) == "localhost/dtjob/trainer:0123456789ab"
    provider.down()
    said = [line.split(" --")[0] for line in calls.read_text().splitlines() if "info" not in line]
    assert said[0] == "kind get clusters"
    assert said[1] == "kind create cluster"
    assert said[2] == "docker build"
    assert said[3].startswith("docker tag sha256:0123456789abcdef localhost/dtjob/trainer")
    assert said[4] == "docker save"
    assert said[5].startswith("kind load image-archive")
    assert said[6] == "kind delete cluster"


def test_an_image_of_ones_own_is_built_on_the_trainer_of_this_checkout_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, own = tmp_path / "calls", tmp_path / "survey"
    with_programs(tmp_path, monkeypatch, "kubectl")
    for name in ("docker", "kind"):
        program(
            tmp_path,
            name,
            f'echo "{name} $*" >> {calls}\n'
            'for a; do case "$a" in --iidfile=*) echo sha256:0123456789abcdef > "${a#*=}";; '
            f"--kubeconfig=*) : > {tmp_path}/exported;; esac; done",
        )
    own.mkdir()
    argv = ["image", str(own), "survey", "--provider", "kind"]
    refused = CliRunner().invoke(app, argv)
    assert "has no Dockerfile. Begin one with `FROM localhost/dtjob/trainer`" in refused.output
    taken = CliRunner().invoke(app, [*argv[:2], "trainer", *argv[3:]])
    assert "'trainer' can't be the name of an image of yours" in taken.output
    (own / "Dockerfile").write_text(
        "FROM localhost/dtjob/trainer\nCOPY survey.py /opt/dtjob/app/\n"
    )
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "localhost/dtjob/survey:0123456789ab"
    built = [line for line in calls.read_text().splitlines() if line.startswith("docker build")]
    assert [line.split("--tag=localhost/dtjob/")[1].split()[0] for line in built] == [
        "trainer",
        "survey",
    ]
    (own / "Dockerfile").write_text("FROM registry.example/dtjob/trainer:0.1.0\n")
    calls.unlink()
    assert CliRunner().invoke(app, argv).exit_code == 0
    assert calls.read_text().count("docker build") == 1


def test_kind_without_kubectl_says_so_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch, "docker", "kind")
    provider = kind.KindProvider("a", Progress())
    assert "kubectl is not installed" in (provider.obstacle() or "")
    with pytest.raises(CannotRunHere, match=r"kubectl is not installed.*kubernetes.io/docs"):
        provider.kubectl()
    program(tmp_path, "kubectl")
    assert provider.obstacle() is None


@pytest.mark.slow
def test_a_kind_cluster_whose_node_is_stopped_is_not_running_and_up_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch, "kubectl")
    started, asked = tmp_path / "started", tmp_path / "asked"
    program(
        tmp_path,
        "docker",
        f"""case "$1" in
        inspect) [ -e {started} ] && echo true || echo false;;
        start) [ "$2" = dtjob-a-control-plane ] && : > {started};;
        exec) [ -e {asked} ] || {{ : > {asked}; exit 1; }};;
        esac""",
    )
    program(
        tmp_path,
        "kind",
        f"""case "$1" in
        get) echo dtjob-a;;
        export) [ -e {started} ] && [ -e {asked} ] || exit 1;;
        esac""",
    )
    provider = kind.KindProvider("a", Progress())
    found = provider.status()
    assert (found.running, "its node is stopped" in found.summary) == (False, True)
    provider.up()
    assert provider.status().running
    program(tmp_path, "docker", "[ $1 = info ] || exit 1")
    with pytest.raises(ClusterError):
        provider.up()


def test_an_existing_cluster_without_a_registry_is_refused_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch)
    program(tmp_path, "docker", f"[ $1 = info ] || : > {tmp_path}/built")
    provider = ExistingProvider("any", Progress())
    with pytest.raises(ClusterError, match="Set DTJOB_REGISTRY"):
        provider.build_image("trainer", tmp_path / "Dockerfile", tmp_path, {})
    assert not (tmp_path / "built").exists()


def test_images_are_built_by_buildkit_without_attestations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch)
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    said = f'echo "$DOCKER_BUILDKIT $BUILDX_NO_DEFAULT_ATTESTATIONS" > {tmp_path}/said'
    program(tmp_path, "docker", f'{said}\necho sha256:0 > "${{2#*=}}"')
    engine.build(Progress(), "docker", "trainer", tmp_path / "Dockerfile", tmp_path, {})
    assert (tmp_path / "said").read_text() == "1 1\n"


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


def test_an_operator_that_does_not_start_shows_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch, "docker", "kind")
    program(
        tmp_path,
        "kubectl",
        """case "$*" in
        *rollout*) echo "error: timed out waiting for the condition" >&2; exit 1;;
        *"get pods"*) echo "dtjob-operator-1 0/1 CrashLoopBackOff";;
        *"get events"*) exit 1;;
        *logs*) echo "Unguarded: the API server accepts a write";;
        esac""",
    )
    monkeypatch.setattr(kind.KindProvider, "load_image", lambda *_: "localhost/dtjob/any:1")
    config = tmp_path / "cache" / "kind" / "a.kubeconfig"
    config.parent.mkdir(parents=True)
    config.touch()
    cluster = install.Cluster.of(kind.KindProvider("a", Progress()))
    images: dict[str, Any] = dict.fromkeys(("operator", "trainer"))
    with pytest.raises(ClusterError) as failed:
        install.install(cluster, images, Progress())
    message = str(failed.value)
    for part in ("timed out", "CrashLoopBackOff", "Unguarded: the API server accepts a write"):
        assert part in message


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
time.sleep(300)
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
        "from demo import background; from localcluster.errors import CannotRunHere\n"
        "def full(provider, console): raise CannotRunHere('building images needs 27 GB free')\n"
        "demo._prepared = full; demo.LOCAL_RUN = ['/bin/echo', 'the local run']"
    )
    with demo(tmp_path, refuse) as running:
        said, _ = running.communicate(timeout=100)
    assert running.returncode == 0
    assert "building images needs 27 GB free\nSo the demo is a run of two local processes" in said
    assert said.rstrip().endswith("the local run")


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
    kinds = {
        "existing": ExistingProvider,
        "kind": kind.KindProvider,
    }
    made = kinds[provider]("a", Progress())
    text = _tear_down(install.Cluster(made, Path("kubectl"), tmp_path), "demo-1")
    assert all(word in text for word in words)
    assert ("demo-down" in text) == (provider == "kind")
    leaves_ledgers = "--selector 'app.kubernetes.io/component!=ledgers'"
    assert text.count("delete -k") == text.count(leaves_ledgers) == (provider == "existing")
