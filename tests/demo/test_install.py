"""What is shown of an installation that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo import install
from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.providers import kind
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


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
