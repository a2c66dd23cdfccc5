"""Clusters of kind, with the programs that are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.progress import Progress
from localcluster.providers import kind
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


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
