"""Clusters that somebody else made."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.providers.existing import ExistingProvider
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


def test_an_existing_cluster_without_a_registry_is_refused_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch)
    program(tmp_path, "docker", f"[ $1 = info ] || : > {tmp_path}/built")
    provider = ExistingProvider("any", Progress())
    with pytest.raises(ClusterError, match="Set DTJOB_REGISTRY"):
        provider.build_image("trainer", tmp_path / "Dockerfile", tmp_path, {})
    assert not (tmp_path / "built").exists()
