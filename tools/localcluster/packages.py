"""Programs that come from the machine's own packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import CannotRunHere
from localcluster.progress import Progress


@dataclass(frozen=True)
class Program:
    """A program and the Debian package that has it.

    Parameters
    ----------
    name
        What is run, or the full path of a file that has to be there.
    package
        The package's name.
    """

    name: str
    package: str

    @property
    def present(self) -> bool:
        """Whether the machine has it; /usr/sbin counts though a shell may not look there."""
        return shutil.which(self.name, path=search_path()) is not None


NODE_PROGRAMS = (
    Program("containerd", "containerd"),
    Program("ctr", "containerd"),
    Program("runc", "runc"),
    Program("/usr/lib/cni/bridge", "containernetworking-plugins"),
    Program("iptables", "iptables"),
    Program("ip", "iproute2"),
    Program("docker-registry", "docker-registry"),
)
IMAGE_PROGRAMS = (
    Program("buildah", "buildah"),
    Program("debootstrap", "debootstrap"),
)


def search_path() -> str:
    """Return PATH with the administrator's folders in it."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    folders += ["/usr/local/sbin", "/usr/sbin", "/sbin"]
    return os.pathsep.join(dict.fromkeys(filter(None, folders)))


def missing(programs: tuple[Program, ...]) -> list[str]:
    """Return the packages, sorted, of the programs that are not there."""
    return sorted({program.package for program in programs if not program.present})


def ensure(progress: Progress, programs: tuple[Program, ...]) -> None:
    """Install what is missing with apt-get, which needs root.

    A package that is there is left as it is, and none is removed to make place for another.

    Raises
    ------
    CannotRunHere
        If something is missing and can't be installed.
    """
    packages = missing(programs)
    if not packages:
        return
    command = f"apt-get install {' '.join(packages)}"
    lacking = f"this machine lacks the packages {', '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise CannotRunHere(lacking, "Install them by the names that your distribution gives them")
    if os.geteuid() != 0:
        raise CannotRunHere(lacking, f"Run `{command}` as root")
    with progress.stage(f"installing {', '.join(packages)} with apt-get"):
        failed = _install(packages)
        if failed and not _apt_get("update", "-qq"):
            failed = _install(packages)
    if failed or missing(programs):
        raise CannotRunHere(f"{lacking}, and apt-get fails: {failed}", f"Run `{command}` by hand")


def _install(packages: list[str]) -> str:
    return _apt_get("install", "-y", "-qq", "--no-remove", "--no-install-recommends", *packages)


def _apt_get(*arguments: str) -> str:
    """Run apt-get and return the end of its complaint, empty if it has none."""
    done = subprocess.run(
        ["apt-get", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode == 0:
        return ""
    return " ".join(done.stderr.split()[-60:]) or f"exit code {done.returncode}"


def require_root(what: str) -> None:
    """Raise unless this process is root.

    Raises
    ------
    CannotRunHere
        If it is not.
    """
    if os.geteuid() != 0:
        raise CannotRunHere(f"{what} needs root", "Run it as root, or use a machine with Docker")


def require_space(folder: Path, gigabytes: int, purpose: str) -> None:
    """Raise unless the file system of `folder` has room.

    Parameters
    ----------
    folder
        Any folder; it may not be there yet.
    gigabytes
        Free space asked for, in units of 10⁹ bytes.
    purpose
        What needs it.

    Raises
    ------
    CannotRunHere
        If it has less.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < gigabytes:
        raise CannotRunHere(
            f"{purpose} needs {gigabytes} GB free and {existing} has {free:.0f} GB",
            "Free some space, or set DTJOB_CACHE to a folder on a larger disk",
        )
