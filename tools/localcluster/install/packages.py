"""Programs that come from the machine's own packages."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import CannotRunHere
from localcluster.base.files import locked
from localcluster.base.paths import cache_folder
from localcluster.base.progress import Progress
from localcluster.install import apt


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
        found = shutil.which(self.name, path=search_path())
        return found is not None or (self.name.startswith("/") and Path(self.name).exists())


NODE_PROGRAMS = (
    Program("containerd", "containerd"),
    Program("ctr", "containerd"),
    Program("runc", "runc"),
    Program("/usr/lib/cni/bridge", "containernetworking-plugins"),
    Program("iptables", "iptables"),
    Program("ip", "iproute2"),
)
IMAGE_PROGRAMS = (
    Program("buildah", "buildah"),
    Program("mmdebstrap", "mmdebstrap"),
    # What Debian's packages are signed with; only another distribution lacks these.
    Program("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    Program("gpg", "gpg"),
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

    Two runs at once are safe: the second waits for the first and finds what it installed.

    Raises
    ------
    CannotRunHere
        If something is missing and can't be installed.
    """
    if not (packages := missing(programs)):
        return
    lacking = f"this machine lacks the packages {', '.join(packages)}"
    command = f"apt-get install {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise CannotRunHere(lacking, "Install them by the names that your distribution gives them")
    if os.geteuid() != 0:
        raise CannotRunHere(lacking, f"Run `{command}` as root")
    lock = cache_folder() / ".packages.lock"
    with locked(lock, timeout=apt.LONGEST_WAIT, holder="installing packages", tell=progress.say):
        failed = _install(progress, missing(programs))
    if failed or missing(programs):
        raise CannotRunHere(f"{lacking}, and apt-get fails: {failed}", f"Run `{command}` by hand")


def _install(progress: Progress, packages: list[str]) -> str:
    if not packages:
        return ""
    with progress.stage(f"installing {', '.join(packages)} with apt-get", "packages") as stage:
        return apt.install(stage, packages)


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
            f"Free some space, or set {project.CACHE_VARIABLE} to a folder on a larger disk",
        )
