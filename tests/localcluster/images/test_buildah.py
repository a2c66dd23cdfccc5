"""What buildah is called with."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.images import buildah


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
