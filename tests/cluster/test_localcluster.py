"""What of tools/localcluster needs no cluster: addresses, command lines, decisions, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from decimal import Decimal
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from localcluster import (
    binaries,
    buildah,
    cgroups,
    controlplane,
    instance,
    linking,
    oci,
    packages,
    storage,
    stored,
)
from localcluster.errors import CannotRunHere, ClusterError
from localcluster.state import (
    Process,
    Record,
    boot_id,
    holder_file,
    locked,
    read_record,
    write_record,
)

pytestmark = pytest.mark.usefixtures("empty_machine")
GO = Path(__file__).resolve().parents[2] / "tools" / "go"


# -- binaries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", binaries.FAMILIES, ids=lambda family: family.name)
def test_each_family_names_its_version_in_go_mod_alone(family: binaries.Family) -> None:
    assert family.version.startswith("v")
    assert family.folder.name == f"{family.name}-{family.version}"
    assert binaries.missing(family) == list(family.packages)


def test_the_binaries_know_their_version() -> None:
    flags = binaries.linker_flags(binaries.KUBERNETES)
    version = binaries.KUBERNETES.version
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"-X k8s.io/component-base/version.gitMinor={version.split('.')[1]}" in flags


def test_all_staging_modules_have_the_version_of_kubernetes() -> None:
    go_mod = (GO / "kubernetes" / "go.mod").read_text()
    replaced = [line.split()[-1] for line in go_mod.splitlines() if " => k8s.io/" in line]
    version = binaries.required_version(go_mod, "k8s.io/kubernetes")
    assert len(replaced) == 33
    assert set(replaced) == {"v0." + version.removeprefix("v1.")}


def test_a_go_mod_without_the_module_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"names no version of example\.org/x"):
        binaries.required_version("require example.org/y v1.0.0\n", "example.org/x")


def test_no_room_is_said_before_building(tmp_path: Path) -> None:
    with pytest.raises(CannotRunHere, match=r"building images needs 1000000 GB free and .* has"):
        packages.require_space(tmp_path / "not" / "there", 1_000_000, "building images")


# -- addresses -----------------------------------------------------------------------------------


def test_the_addresses_of_a_cluster_lie_in_its_block() -> None:
    for slot in range(32):
        cluster = instance.Instance("a", slot)
        parts = [cluster.pods, cluster.services, cluster.link]
        assert all(part.subnet_of(cluster.block) for part in parts)
        assert not any(a.overlaps(b) for a in parts for b in parts if a is not b)
        assert len(cluster.interface) <= 15


def test_a_used_block_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = instance.allocate("a")
    assert instance.allocate("a") == usual
    monkeypatch.setattr(instance, "_routed_networks", lambda: [usual.pods])
    beside = instance.allocate("a")
    assert beside.slot != usual.slot
    write_record(instance.state_folder("b"), Record(slot=beside.slot, boot=boot_id()))
    third = instance.allocate("a")
    assert third.slot not in (usual.slot, beside.slot)
    monkeypatch.setattr(instance, "_routed_networks", lambda: [IPv4Network("10.0.0.0/8")])
    with pytest.raises(ClusterError, match="no address block"):
        instance.allocate("a")


def test_routes_are_read_and_the_default_is_none() -> None:
    listed: list[dict[str, object]] = [
        {"dst": "default"},
        {"dst": "10.1.2.0/24"},
        {"dst": "10.9.9.9", "type": "local"},
    ]
    assert instance.routed_networks(listed) == [
        IPv4Network("10.1.2.0/24"),
        IPv4Network("10.9.9.9/32"),
    ]


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a" * 31, "a/b", "../a"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="can't be the name of a cluster"):
        instance.state_folder(name)


def test_the_api_server_is_where_pods_look_for_it() -> None:
    cluster = instance.Instance("a", 3)
    argv = controlplane.api_server(cluster).argv
    assert f"--service-cluster-ip-range={cluster.services}" in argv
    assert "--secure-port=443" in argv
    assert cluster.kubernetes_service == next(cluster.services.hosts())


# -- state ---------------------------------------------------------------------------------------


def test_a_recycled_pid_is_not_ours() -> None:
    own = Process.of(os.getpid())
    assert own.alive
    assert not Process(own.pid, own.start_ticks + 1).alive
    with pytest.raises(ProcessLookupError):
        Process(own.pid, own.start_ticks + 1).kill()


def test_an_ended_process_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.alive
    process.kill()
    child.communicate()
    assert not process.alive


def test_a_record_is_read_as_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path, Record(slot=3, boot=boot_id()))
    assert read_record(tmp_path) == Record(slot=3, boot=boot_id())
    holder_file(tmp_path).write_text(Path("/proc/self/stat").read_text())
    read = read_record(tmp_path)
    assert read is not None
    assert read.running
    assert read.holder == Process.of(os.getpid())
    write_record(tmp_path, Record(slot=3, boot="another"))
    after_boot = read_record(tmp_path)
    assert after_boot is not None
    assert not after_boot.running


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"slot": 1}'])
def test_a_record_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ClusterError, match="is not a record of a cluster"):
        read_record(tmp_path)


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"""if True:
        import sys; sys.path.insert(0, {str(GO.parent)!r})
        from pathlib import Path
        from localcluster.state import locked
        with locked(Path({str(lock)!r}), timeout=5, holder="testing", tell=print):
            print("held", flush=True); input()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout
    assert other.stdout.readline() == b"held\n"
    told: list[str] = []
    with (
        pytest.raises(ClusterError, match=rf"\(PID {other.pid}\) has been testing for"),
        locked(lock, timeout=0.2, holder="testing", tell=told.append),
    ):
        pass
    assert told == [f"  waiting for another process (PID {other.pid}), which is testing"]
    other.kill()
    other.communicate()
    with locked(lock, timeout=5, holder="testing", tell=told.append):
        pass
    assert len(told) == 1


# -- node ----------------------------------------------------------------------------------------


def test_cgroup_hierarchies_of_both_versions_are_found() -> None:
    mounts = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    )
    assert cgroups.hierarchies(mounts) == [
        Path("/sys/fs/cgroup/memory"),
        Path("/sys/fs/cgroup/unified"),
    ]


def claim(**changes: Any) -> dict[str, Any]:
    annotations = {
        "volume.kubernetes.io/selected-node": "n",
        "volume.kubernetes.io/storage-provisioner": storage.PROVISIONER,
    }
    return {
        "metadata": {"name": "c", "namespace": "s", "uid": "u", "annotations": annotations}
        | changes.pop("metadata", {}),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        | changes.pop("spec", {}),
        "status": changes.pop("status", {}),
    }


def test_a_claim_with_a_node_gets_a_volume_there(tmp_path: Path) -> None:
    volume = storage.volume_for(claim(), tmp_path)
    assert volume
    assert volume["spec"]["local"] == {"path": str(tmp_path / "pvc-u")}
    assert volume["spec"]["claimRef"]["uid"] == "u"
    assert '"values": ["n"]' in json.dumps(volume["spec"]["nodeAffinity"])


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"annotations": None}},
        {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}},
        {"metadata": {"deletionTimestamp": "now"}},
        {"spec": {"volumeName": "pvc-u"}},
    ],
)
def test_no_volume_where_none_is_asked_for(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert storage.volume_for(claim(**changes), tmp_path) is None


@pytest.mark.parametrize(
    ("granted", "expected"), [(None, None), ("1Gi", None), ("2Gi", None), ("900M", "1Gi")]
)
def test_a_claim_grows_and_never_shrinks(granted: str | None, expected: str | None) -> None:
    status = {"capacity": {"storage": granted}} if granted else {}
    assert storage.expansion_of(claim(status=status)) == expected


@pytest.mark.parametrize(
    ("quantity", "size"), [("1Gi", 2**30), ("500M", 5 * 10**8), ("1.5Ki", 1536), ("12", 12)]
)
def test_quantities(quantity: str, size: int) -> None:
    assert storage.bytes_of(quantity) == Decimal(size)


# -- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dockerfile", "declared"),
    [
        ("ARG BASE_IMAGE=python:3.11-slim\nFROM ${BASE_IMAGE}\n", True),
        ("FROM x\n# ARG BASE_IMAGE\n", False),
        ("ARG BASE_IMAGES=a\nFROM x\n", False),
    ],
)
def test_the_base_is_given_where_it_is_asked_for(dockerfile: str, declared: bool) -> None:
    assert buildah.declares_argument(dockerfile, buildah.BASE_ARGUMENT) is declared


def test_buildah_command_line() -> None:
    argv = buildah.build_arguments(Path("D"), Path("."), "t", {"A": "1"}, Path("/i"))
    assert argv[:3] == ["build", "--layers", "--network=host"]
    assert "--build-arg=A=1" in argv
    assert argv[-1] == "."


def test_what_uv_has_unpacked_is_mounted_where_a_build_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    arguments = {buildah.UV_CACHE_ARGUMENT: "/mnt"}
    argv = buildah.build_arguments(Path("D"), Path("."), "t", arguments, Path("/i"))
    assert f"--volume={tmp_path}/uv:/mnt:rw" in argv
    assert (tmp_path / "uv").is_dir()


@pytest.mark.parametrize("image", ["operator", "trainer"])
def test_the_images_take_the_cache_that_is_mounted(image: str) -> None:
    dockerfile = (GO.parents[1] / f"Dockerfile.{image}").read_text()
    assert buildah.declares_argument(dockerfile, buildah.UV_CACHE_ARGUMENT)
    assert "UV_CACHE_DIR=${UV_CACHE}" in dockerfile


def store(folder: Path, layers: list[str]) -> str:
    """Write an image of these layers as the builder keeps it; its identifier."""
    config, digests = b'{"os": "linux"}', [oci.digest(name.encode()) for name in layers]
    identifier = oci.digest(config)
    own = identifier.removeprefix("sha256:")
    images = folder / "overlay-images"
    (images / own).mkdir(parents=True)
    (images / "images.json").write_text(json.dumps([{"id": own, "layer": layers[-1]}]))
    manifest = {"layers": [{"digest": digest} for digest in digests]}
    (images / own / "manifest").write_bytes(oci.to_json(manifest))
    (images / own / f"={b64encode(identifier.encode()).decode()}").write_bytes(config)
    below = [None, *layers[:-1]]
    rows = [
        {"id": name, "diff-digest": digest} | ({"parent": parent} if parent else {})
        for name, digest, parent in zip(layers, digests, below, strict=True)
    ]
    (folder / "overlay-layers").mkdir()
    (folder / "overlay-layers" / "layers.json").write_text(json.dumps(rows[::-1]))
    return identifier


def test_an_image_is_read_from_the_builders_store_lowest_layer_first(tmp_path: Path) -> None:
    read = stored.read(tmp_path, store(tmp_path, ["base", "middle", "top"]))
    folders = [layer.folder for layer in read.layers]
    assert folders == [tmp_path / "overlay" / name / "diff" for name in ("base", "middle", "top")]
    assert read.layers[0].digest == oci.digest(b"base")
    assert read.config == b'{"os": "linux"}'


def test_a_store_that_is_not_as_expected_is_an_error(tmp_path: Path) -> None:
    identifier = store(tmp_path, ["base", "top"])
    with pytest.raises(ClusterError, match="image sha256:other can't be read"):
        stored.read(tmp_path, "sha256:other")
    layers = tmp_path / "overlay-layers" / "layers.json"
    layers.write_text(json.dumps([{"id": "top", "diff-digest": oci.digest(b"top")}]))
    with pytest.raises(ClusterError, match="has other layers than it names"):
        stored.read(tmp_path, identifier)
    layers.unlink()
    with pytest.raises(ClusterError, match="can't be read"):
        stored.read(tmp_path, identifier)


def test_layers_are_named_by_all_below_them() -> None:
    # The example of the specification of OCI images: ChainID(a, b) = sha256("a b").
    assert oci.chain(["sha256:a"]) == ["sha256:a"]
    assert oci.chain(["sha256:a", "sha256:b"])[1] == oci.digest(b"sha256:a sha256:b")


def test_the_folder_of_a_snapshot_is_found_in_how_it_is_mounted() -> None:
    lowest = {"Type": "bind", "Source": "/c/1/fs", "Options": ["rw", "rbind"]}
    assert linking.written_folder([lowest]) == Path("/c/1/fs")
    options = ["index=off", "workdir=/c/2/work", "upperdir=/c/2/fs", "lowerdir=/c/1/fs"]
    other = {"Type": "overlay", "Source": "overlay", "Options": options}
    assert linking.written_folder([other]) == Path("/c/2/fs")
