"""Images built here get into pods, also after a build that was interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.images import buildah, oci
from localcluster.node.ctr import Client
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.checkout import TOOLS
from tests.support.clusters.kube import Kubectl, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.local_cluster, pytest.mark.timeout(900)]
FROM = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"


def write(folder: Path, dockerfile: str) -> Path:
    path = folder / "Dockerfile"
    path.write_text(FROM + dockerfile)
    return path


def run(kubectl: Kubectl, image: str) -> str:
    """Return what a pod of `image` printed, run to its end."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "main", "image": image, "securityContext": security}
    metadata = {"generateName": "run-"}
    spec = {"restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    name = kubectl.create(pod)
    kubectl.wait("pod", name, lambda pod: pod["status"]["phase"] == "Succeeded", timeout=180)
    return kubectl("logs", name)


def test_a_change_of_content_gives_another_reference_and_is_in_the_next_pod(
    cluster: Provider, namespace: Kubectl, tmp_path: Path
) -> None:
    dockerfile = write(tmp_path, 'COPY said /said\nUSER 65532:65532\nENTRYPOINT ["cat", "/said"]\n')
    references = []
    for said in ("first", "second"):
        (tmp_path / "said").write_text(said)
        image = cluster.build_image("test-said", dockerfile, tmp_path, {})
        references.append(cluster.load_image(image))
        assert run(namespace, references[-1]) == said
    assert references[0] != references[1]
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", reference) for reference in references)
    (tmp_path / "said").write_text("first")
    again = cluster.build_image("test-said", dockerfile, tmp_path, {})
    assert cluster.load_image(again) == references[0]


def test_layers_are_linked_and_hide_what_they_remove(
    cluster: Provider, namespace: Kubectl, tmp_path: Path
) -> None:
    """A file and a folder of the base that are gone, and a folder that was made anew."""
    dockerfile = write(
        tmp_path,
        "COPY said /said\n"
        "RUN rm /etc/debian_version && rm -r /usr/share/doc /etc/skel && mkdir /etc/skel \\\n"
        " && echo new > /etc/skel/new && ln -s /said /linked\n"
        "USER 65532:65532\n"
        # By one pipe: what comes by two is logged in any order.
        'ENTRYPOINT ["sh", "-c", "exec 2>&1; ls /etc/debian_version /usr/share/doc; '
        "ls -A /etc/skel;"
        ' cat /linked"]\n',
    )
    (tmp_path / "said").write_text(f"linked {os.getpid()}")
    image = cluster.build_image("test-removes", dockerfile, tmp_path, {})
    reference = cluster.load_image(image)
    said = run(namespace, reference)
    assert said.endswith(f"new\nlinked {os.getpid()}")
    assert said.count("No such file or directory") == 2
    (layer,) = buildah.stored(image).layers[1:2]
    assert (layer.folder / "said").stat().st_nlink > 1


def test_a_load_goes_on_after_one_that_was_ended(
    cluster: Provider, namespace: Kubectl, tmp_path: Path
) -> None:
    assert isinstance(cluster, LocalProvider)
    (tmp_path / "said").write_text(f"unfinished {os.getpid()}")
    dockerfile = write(tmp_path, 'COPY said /said\nUSER 65532:65532\nENTRYPOINT ["cat", "/said"]\n')
    image = cluster.build_image("test-unfinished", dockerfile, tmp_path, {})
    below, top = oci.chain(layer.digest for layer in buildah.stored(image).layers)
    ctr = Client(cluster.daemon())
    ctr("snapshots", "prepare", f"{top}-unfinished", below)
    assert run(namespace, cluster.load_image(image)) == f"unfinished {os.getpid()}"
    assert f"{top}-unfinished" not in ctr("snapshots", "ls")


def test_a_failing_build_shows_its_last_words(cluster: Provider, tmp_path: Path) -> None:
    dockerfile = write(tmp_path, "RUN echo all is lost && exit 7\n")
    with pytest.raises(ClusterError, match="all is lost"):
        cluster.build_image("test-fails", dockerfile, tmp_path, {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_an_interrupted_build_leaves_nothing_and_the_next_one_works(
    cluster: Provider, tmp_path: Path, number: int
) -> None:
    mark = f"sleep 98{os.getpid()}{int(number)}"
    dockerfile = write(tmp_path, f"RUN {mark}\n")
    script = f"""if True:
        from pathlib import Path
        from localcluster.images import buildah
        from localcluster.base.progress import Progress
        folder = Path({str(tmp_path)!r})
        buildah.build(Progress(), "test-slow", folder / "Dockerfile", folder, {{}})
    """
    before = Path("/proc/mounts").read_text()
    builder = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
        stderr=subprocess.DEVNULL,
    )

    def sleeping() -> bool:
        return (
            subprocess.run(["pgrep", "-fx", mark], capture_output=True, check=False).returncode == 0
        )

    wait_for("the slow step", sleeping, timeout=120)
    builder.send_signal(number)
    builder.wait(timeout=120)
    wait_for("the slow step's end", lambda: not sleeping(), timeout=120)
    assert Path("/proc/mounts").read_text() == before
    dockerfile.write_text(FROM + "RUN true\n")
    cluster.build_image("test-slow", dockerfile, tmp_path, {})
