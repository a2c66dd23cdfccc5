"""What Docker and Podman are called with."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.base.progress import Progress
from localcluster.images import engine
from tests.support.programs import program, with_programs

pytestmark = pytest.mark.usefixtures("empty_machine")


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


def test_images_are_built_by_buildkit_without_attestations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_programs(tmp_path, monkeypatch)
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    said = f'echo "$DOCKER_BUILDKIT $BUILDX_NO_DEFAULT_ATTESTATIONS" > {tmp_path}/said'
    program(tmp_path, "docker", f'{said}\necho sha256:0 > "${{2#*=}}"')
    engine.build(Progress(), "docker", "trainer", tmp_path / "Dockerfile", tmp_path, {})
    assert (tmp_path / "said").read_text() == "1 1\n"
