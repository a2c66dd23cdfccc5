"""A container engine of the machine: Docker or Podman, whichever answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.images.built import LOCAL_NAME, BuiltImage

ENGINES = ("docker", "podman")
_LAST_LINES = 20
# The Dockerfiles mount caches, which Docker's older builder can't; an attestation holds the time of
# the build, so equal content would not have an equal digest.
_BUILD_ENVIRONMENT = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


def find() -> str | None:
    """Return the name of the engine that answers, or None."""
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        try:
            answer = subprocess.run([engine, "info"], check=False, capture_output=True, timeout=20)
        except subprocess.TimeoutExpired:
            continue
        if answer.returncode == 0:
            return engine
    return None


def build_argv(
    engine: str,
    name: str,
    dockerfile: Path,
    context: Path,
    build_args: Mapping[str, str],
    identifier_file: Path,
) -> list[str]:
    """Return the command line of a build."""
    argv = [engine, "build", f"--iidfile={identifier_file}", f"--tag={LOCAL_NAME}{name}"]
    argv.append(f"--file={dockerfile}")
    argv += [f"--build-arg={key}={value}" for key, value in sorted(build_args.items())]
    return [*argv, str(context)]


def build(
    progress: Progress,
    engine: str,
    name: str,
    dockerfile: Path,
    context: Path,
    build_args: Mapping[str, str],
) -> BuiltImage:
    """Build an image; its base comes from where the Dockerfile says.

    Raises
    ------
    ClusterError
        If the build fails, with the end of its output.
    """
    with TemporaryDirectory() as folder:
        identifier = Path(folder) / "identifier"
        with progress.stage(f"building image {name} with {engine}", key=f"image {name}"):
            argv = build_argv(engine, name, dockerfile, context, build_args, identifier)
            run(argv, _BUILD_ENVIRONMENT)
        return BuiltImage(name, identifier.read_text().strip())


def run(argv: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command, with additions to the environment, and return its standard output.

    Raises
    ------
    ClusterError
        If it fails, with the end of its complaint.
    """
    done = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | dict(environment or {}),
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise ClusterError(f"`{' '.join(argv[:2])}` failed:\n{tail}\n")
    return done.stdout
