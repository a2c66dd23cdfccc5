"""Images without Docker: buildah, in folders of its own."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.base.files import locked
from localcluster.base.namespaces import private_command
from localcluster.base.paths import images_folder, uv_cache
from localcluster.base.progress import Progress, Stage
from localcluster.images import debian_base
from localcluster.images.builder_store import StoredImage, read
from localcluster.images.built import LOCAL_NAME, BuiltImage
from localcluster.install import packages

BASE_ARGUMENT = "BASE_IMAGE"
UV_CACHE_ARGUMENT = "UV_CACHE"
FREE_GIGABYTES = 27
"""Free disk asked for while the builder has nothing: an environment with torch's CUDA build takes
6 GB, and buildah has it four times while it makes a layer of it (25 GB in all were seen)."""

_LONGEST_BUILD = 3600.0
_LAST_LINES = 20
_NOTE_WIDTH = 60
# How this machine reaches package indexes; read by builds, never part of an image.
_MACHINE_CONFIGURATION = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))
_UV_CACHE = Path("/mnt")  # a folder that an image has anyway: what is mounted on leaves none behind


def build(
    progress: Progress,
    name: str,
    dockerfile: Path,
    context: Path,
    build_args: Mapping[str, str],
) -> BuiltImage:
    """Build an image with layers kept for the next time.

    A Dockerfile with `ARG BASE_IMAGE` gets a base image made on this machine and one with `ARG
    UV_CACHE` what uv has already downloaded and unpacked here, unless `build_args` has others.

    Parameters
    ----------
    name
        Repository below the project's.
    dockerfile, context
        What to build, and from which folder.
    build_args
        Values for the Dockerfile's `ARG` lines.

    Raises
    ------
    CannotRunHere
        If root, a package or disk space is missing.
    ClusterError
        If the build fails, with the end of its output.
    """
    packages.require_root("building images without Docker")
    packages.ensure(progress, packages.IMAGE_PROGRAMS)
    if not _store().exists():
        packages.require_space(_store(), FREE_GIGABYTES, "building images")
    arguments = dict(build_args)
    with _builder(progress):
        declared = dockerfile.read_text()
        if declares_argument(declared, BASE_ARGUMENT):
            arguments.setdefault(BASE_ARGUMENT, _base_image(progress))
        if declares_argument(declared, UV_CACHE_ARGUMENT):
            arguments.setdefault(UV_CACHE_ARGUMENT, str(_UV_CACHE))
        with progress.stage(f"building image {name}", key=f"image {name}") as stage:
            identifier = _build(stage, dockerfile, context, LOCAL_NAME + name, arguments)
    return BuiltImage(name, identifier)


def stored(image: BuiltImage) -> StoredImage:
    """Return what the builder's store has of an image."""
    return read(_store(), image.identifier)


def declares_argument(dockerfile: str, argument: str) -> bool:
    """Whether a Dockerfile has an `ARG` line for `argument`."""
    return re.search(rf"^\s*ARG\s+{argument}\b", dockerfile, re.MULTILINE) is not None


def build_arguments(
    dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str], identifier_file: Path
) -> list[str]:
    """Return buildah's arguments for a build."""
    argv = ["build", "--layers", "--network=host", "--isolation=chroot"]
    argv += [f"--iidfile={identifier_file}", f"--tag={tag}", f"--file={dockerfile}"]
    argv += [f"--build-arg={key}={value}" for key, value in sorted(arguments.items())]
    argv += [f"--volume={path}:{path}:ro" for path in _MACHINE_CONFIGURATION if path.exists()]
    if UV_CACHE_ARGUMENT in arguments:
        uv_cache().mkdir(parents=True, exist_ok=True)
        argv.append(f"--volume={uv_cache()}:{_UV_CACHE}:rw")
    return [*argv, str(context)]


def _build(
    stage: Stage, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str]
) -> str:
    with TemporaryDirectory() as folder:
        identifier = Path(folder) / "identifier"
        _buildah(*build_arguments(dockerfile, context, tag, arguments, identifier), stage=stage)
        return identifier.read_text().strip()


def _base_image(progress: Progress) -> str:
    if not _buildah("images", "--quiet", "--filter", f"reference={debian_base.REFERENCE}"):
        title = f"making the base image (Debian {debian_base.SUITE} and its Python)"
        with (
            progress.stage(title, key="base image") as stage,
            TemporaryDirectory(dir=images_folder()) as folder,
        ):
            stage.note = "mmdebstrap"
            debian_base.prepare(Path(folder))
            stage.note = "importing"
            _build(stage, Path(folder) / "Dockerfile", Path(folder), debian_base.REFERENCE, {})
    return debian_base.REFERENCE


def _store() -> Path:
    return images_folder() / "buildah"


@contextmanager
def _builder(progress: Progress) -> Iterator[None]:
    """Have the builder to ourselves; what an interrupted build left is removed first."""
    unfinished = images_folder() / "buildah-unfinished"
    lock = images_folder() / ".buildah.lock"
    with locked(lock, timeout=_LONGEST_BUILD, holder="building images", tell=progress.say):
        if unfinished.exists():
            _buildah("rm", "--all")
        unfinished.touch()
        yield
        unfinished.unlink()


def _buildah(*arguments: str, stage: Stage | None = None) -> str:
    """Run buildah and return what it wrote to standard output.

    Its run folder is in memory, in a mount namespace: an interrupted build leaves no mount, and no
    note of one.
    """
    run_folder = images_folder() / "buildah-run"
    temporary = images_folder() / "buildah-tmp"  # layers on their way, and the caches of builds
    run_folder.mkdir(parents=True, exist_ok=True)
    temporary.mkdir(exist_ok=True)
    private = f'mount -t tmpfs {project.NAME} "$0" && exec "$@"'
    argv = ["sh", "-c", private, str(run_folder), "buildah", f"--root={_store()}"]
    argv += [f"--runroot={run_folder}", "--storage-driver=overlay", *arguments]
    running = subprocess.Popen(
        private_command(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if stage else subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": packages.search_path(), "TMPDIR": str(temporary)},
    )
    with running:
        try:
            if stage is None:
                output, errors = running.communicate()
                lines = errors.splitlines()
            else:
                lines = list(_followed(running, stage))
                output = ""
        except BaseException:
            running.kill()  # PID 1 of a namespace does not get an interrupt
            raise
    if running.returncode != 0:
        tail = "\n".join(lines[-_LAST_LINES:])
        raise ClusterError(f"`buildah {arguments[0]}` failed:\n{tail}\n")
    return str(output).strip()


def _followed(running: subprocess.Popen[str], stage: Stage) -> Iterator[str]:
    for line in running.stdout or ():
        if line.startswith("STEP "):
            stage.note = textwrap.shorten(line, _NOTE_WIDTH, placeholder=" …")
        yield line.rstrip()
