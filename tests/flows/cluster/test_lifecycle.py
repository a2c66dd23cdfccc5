"""Clusters of provider `local` come and go, crash, and leave nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.base.progress import Progress
from localcluster.cluster.instance import Instance
from localcluster.cluster.state import Process, Record, holder_file, read_record
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.checkout import TOOLS
from tests.support.clusters.kube import Kubectl, ready, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.local_cluster, pytest.mark.timeout(1800)]


@pytest.fixture
def second(cluster: Provider) -> Iterator[LocalProvider]:
    """A second cluster beside the shared one, of a name that nothing else uses; not started."""
    assert isinstance(cluster, LocalProvider)
    provider = LocalProvider(f"test-{secrets.token_hex(3)}", Progress())
    yield provider
    provider.down(purge=True)


def record_of(provider: LocalProvider) -> Record:
    record = read_record(Instance(provider.name, 0).folder)
    assert record
    return record


def holder_of(provider: LocalProvider) -> Process:
    holder = record_of(provider).holder
    assert holder
    return holder


def up_command(provider: LocalProvider) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "localcluster", "up", "--provider", "local"]
    return subprocess.Popen(
        [*argv, "--name", provider.name],
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def descendants(holder: Process) -> list[Process]:
    """Return all processes below `holder`, pods' among them."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = [], [holder.pid]
    while todo:
        children = parents.get(todo.pop(), [])
        todo += children
        for pid in children:
            try:
                found.append(Process.of(pid))
            except ProcessLookupError:
                continue
    return found


def traces(name: str) -> dict[str, object]:
    """Return what of the machine a cluster could change, the shared cluster's pods left out."""
    links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
    routes = json.loads(subprocess.check_output(["ip", "-json", "route"]))
    rules = subprocess.check_output(["iptables-save"], text=True)
    cgroups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"/dtjob-{name}" in path]
    return {
        "links": sorted(link["ifname"] for link in links),
        "routes": sorted(route["dst"] for route in routes),
        "firewall": [line for line in rules.splitlines() if line.startswith("-")],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "mounts": sorted(Path("/proc/mounts").read_text().splitlines()),
        "cgroups": cgroups,
        "state": Instance(name, 0).folder.exists(),
        "run": of_a_cluster(name, os.listdir("/run")),
        "lib": of_a_cluster(name, os.listdir("/var/lib")),
    }


def of_a_cluster(name: str, found: list[str]) -> list[str]:
    """Those of these files that a cluster could have made: the machine makes some at any time."""
    ours = ("dtjob", "containerd", "kubelet", "cni", "runc", "netns", "etcd", "kube")
    return sorted(each for each in found if name in each or each.startswith(ours))


def assert_usable(provider: LocalProvider, node_count: int = 1) -> None:
    kubectl = Kubectl(provider.kubectl(), provider.kubeconfig())
    names = [f"dtjob-{provider.name}", f"dtjob-{provider.name}-2"][:node_count]
    assert sorted(each["metadata"]["name"] for each in kubectl.list("nodes")) == names


def run_a_pod(provider: LocalProvider, folder: Path, node: str) -> list[Process]:
    """Run a pod with a volume of its own on a node and return its processes."""
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
    image = provider.build_image("test-sleeper", folder / "Dockerfile", folder, {})
    mount = {"name": "memory", "mountPath": "/memory"}
    container = {
        "name": "main",
        "image": provider.load_image(image),
        "command": ["sleep", "3600"],
        "volumeMounts": [mount],
    }
    volume = {"name": "memory", "emptyDir": {"medium": "Memory"}}
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [container],
        "volumes": [volume],
    }
    kubectl = Kubectl(provider.kubectl(), provider.kubeconfig())
    metadata = {"generateName": "sleeper-"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    running = kubectl.wait("pod", kubectl.create(pod), ready, timeout=180)
    return provider.pod_processes(running["metadata"]["uid"])


def test_a_crash_leaves_nothing_after_down(second: LocalProvider, tmp_path: Path) -> None:
    """Of two nodes with a pod each."""
    before = traces(second.name)
    second.up(node_count=2)
    assert_usable(second, 2)
    holder = holder_of(second)
    in_pods = [run_a_pod(second, tmp_path, f"dtjob-{second.name}{suffix}") for suffix in ("", "-2")]
    assert all(in_pods)
    second.up()
    assert holder_of(second) == holder, "a second up must change nothing"

    started = descendants(holder)
    assert {process for in_pod in in_pods for process in in_pod} < set(started)
    daemon = next(process for process in started if process.pid == min(p.pid for p in started))
    daemon.kill()
    # With them go mounts, and the kernel writes what lies in those to the disk first.
    wait_for("the end of all", lambda: not any(p.alive for p in [holder, *started]), timeout=120)
    assert not second.status().running
    second.down()
    assert traces(second.name) == before
    second.down()  # nothing there: no error


def test_up_goes_on_after_an_interrupted_up(second: LocalProvider) -> None:
    before = traces(second.name)
    folder = Instance(second.name, 0).folder
    first = up_command(second)
    wait_for("the daemon", lambda: holder_file(folder).exists(), timeout=120, every=0.001)
    first.kill()
    first.wait()
    second.up()
    assert_usable(second)
    second.down()
    assert traces(second.name) == before


def test_two_clusters_run_side_by_side(cluster: Provider, second: LocalProvider) -> None:
    assert isinstance(cluster, LocalProvider)
    second.up()
    assert_usable(second)
    assert_usable(cluster)
    blocks = [Instance(each.name, record_of(each).slot).block for each in (cluster, second)]
    assert not blocks[0].overlaps(blocks[1])
    second.down()
    assert_usable(cluster)


def test_the_api_server_can_be_away_for_a_while(cluster: Provider) -> None:
    assert isinstance(cluster, LocalProvider)
    kubectl = Kubectl(cluster.kubectl(), cluster.kubeconfig())
    cluster.stop_component("kube-apiserver")
    try:
        kubectl("get", "--raw", "/readyz", "--request-timeout=2s", fails=True, patient=False)
    finally:
        cluster.start_component("kube-apiserver")

    def answers() -> bool:
        return cluster.status().running

    wait_for("the API server", answers, timeout=240)


def test_two_ups_at_once_make_one_cluster(second: LocalProvider) -> None:
    both = [up_command(second), up_command(second)]
    assert [each.wait(timeout=400) for each in both] == [0, 0]
    assert_usable(second)
