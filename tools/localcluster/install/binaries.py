"""Kubernetes' own binaries: taken from the tools cache, built from source where it lacks them.

Each family is a Go module in the folder `go` beside this package. Its go.mod is the only place
that names its version.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.files import locked
from localcluster.base.paths import go_modules, tools_cache
from localcluster.base.progress import Progress
from localcluster.base.project import TOOLS_CACHE_VARIABLE

_LONGEST_BUILD = 3600.0


@dataclass(frozen=True)
class Family:
    """Binaries that are built from one Go module.

    Parameters
    ----------
    name
        Folder below `go` and first part of the folder in the tools cache.
    module
        The required module whose version is the family's; None if the module itself is all.
    packages
        Binary name → package to build.
    version_symbols
        Package whose `gitVersion`, `gitMajor` and `gitMinor` the linker sets.
    """

    name: str
    module: str | None
    packages: dict[str, str]
    version_symbols: str | None = None

    @property
    def source(self) -> Path:
        """The Go module."""
        return go_modules() / self.name

    @property
    def version(self) -> str:
        """The version that go.mod requires, or "v1" for a module without requirements."""
        if self.module is None:
            return "v1"
        return required_version((self.source / "go.mod").read_text(), self.module)

    @property
    def folder(self) -> Path:
        """Where the tools cache has its binaries."""
        return tools_cache() / f"{self.name}-{self.version}"


_KUBERNETES_COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
)
KUBERNETES = Family(
    name="kubernetes",
    module="k8s.io/kubernetes",
    packages={command: f"k8s.io/kubernetes/cmd/{command}" for command in _KUBERNETES_COMMANDS},
    version_symbols="k8s.io/component-base/version",
)
ETCD = Family("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"})
COREDNS = Family("coredns", "github.com/coredns/coredns", {"coredns": "."})
PAUSE = Family("pause", None, {"pause": "."})
FAMILIES = (PAUSE, ETCD, COREDNS, KUBERNETES)
"""What a cluster is made of."""
KWOK = Family("kwok", "sigs.k8s.io/kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"})
"""Plays kubelets: nodes and pods that are objects alone, by hundreds."""
METRICS_SERVER = Family(
    "metrics-server",
    "sigs.k8s.io/metrics-server",
    {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
)
"""Tells autoscalers what pods use, where a cluster is asked for it."""
OLDEST_KUBERNETES = Family(
    name="kubernetes-oldest",
    module="k8s.io/kubernetes",
    packages={"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"},
    version_symbols="k8s.io/component-base/version",
)
"""The API server of the oldest minor version that docs/cluster.md names."""


def required_version(go_mod: str, module: str) -> str:
    """Return the version of `module` that a go.mod requires.

    Raises
    ------
    ClusterError
        If it requires none.
    """
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ClusterError(f"go.mod names no version of {module}")
    return found[1]


def linker_flags(family: Family) -> str:
    """Return `-ldflags`: no debug information and, where asked for, the version."""
    flags = ["-s", "-w"]
    if family.version_symbols:
        major, minor, _ = family.version.removeprefix("v").split(".", 2)
        values = {"gitVersion": family.version, "gitMajor": major, "gitMinor": minor}
        flags += [f"-X {family.version_symbols}.{key}={value}" for key, value in values.items()]
    return " ".join(flags)


def missing(family: Family) -> list[str]:
    """Return the names of the family's binaries that the tools cache lacks."""
    return [name for name in family.packages if not os.access(family.folder / name, os.X_OK)]


def only(family: Family, name: str) -> Family:
    """Return `family` with a single binary, for who needs no more of it."""
    return replace(family, packages={name: family.packages[name]})


def path(family: Family, name: str) -> Path:
    """Return where the binary `name` of `family` lies once `ensure` has run."""
    return family.folder / name


def ensure(progress: Progress, families: tuple[Family, ...] = FAMILIES) -> None:
    """Build every binary that the tools cache lacks.

    Two runs at once are safe: the second waits for the first and takes what it built. An
    interrupted build leaves nothing that a later one could mistake for a binary.

    Raises
    ------
    CannotRunHere
        If something is missing and Go is not there or too old.
    ClusterError
        If a build fails.
    """
    for family in families:
        if not missing(family):
            continue
        require_buildable(family)
        lock = tools_cache() / f".{family.name}.lock"
        holder = f"building {family.name}"
        with locked(lock, timeout=_LONGEST_BUILD, holder=holder, tell=progress.say):
            for name in missing(family):
                _build(family, name, progress)


def _build(family: Family, name: str, progress: Progress) -> None:
    family.folder.mkdir(parents=True, exist_ok=True)
    for interrupted in family.folder.glob(f".{name}.*"):
        interrupted.unlink()
    temporary = family.folder / f".{name}.{os.getpid()}"
    argv = ["go", "build", "-buildvcs=false", "-trimpath", "-ldflags", linker_flags(family)]
    argv += ["-o", str(temporary), family.packages[name]]
    with progress.stage(f"building {name} {family.version} from source", key=f"build {name}"):
        built = subprocess.run(
            argv,
            check=False,
            cwd=family.source,
            env=os.environ | {"CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if built.returncode != 0:
        temporary.unlink(missing_ok=True)
        lines = "\n".join(built.stderr.strip().splitlines()[-15:])
        raise ClusterError(f"building {name} {family.version} failed:\n{lines}\n")
    temporary.replace(family.folder / name)


def require_buildable(family: Family) -> None:
    """Raise if a binary is missing and this machine can't build it.

    Raises
    ------
    CannotRunHere
        If Go is not there, or too old.
    """
    if not missing(family):
        return
    needed = re.search(r"^go (\S+)", (family.source / "go.mod").read_text(), re.MULTILINE)
    wanted = needed[1] if needed else "any version"
    remedy = (
        f"Install Go {wanted} or newer from https://go.dev/dl/, or set {TOOLS_CACHE_VARIABLE} to a "
        f"folder that has {family.name}-{family.version}/"
    )
    what = f"{family.name} {family.version} has to be built ({', '.join(missing(family))})"
    if shutil.which("go") is None:
        raise CannotRunHere(f"{what} and there is no Go", remedy)
    toolchain = subprocess.run(
        ["go", "list", "-m", "-f", "{{.GoVersion}}"],
        check=False,
        cwd=family.source,
        capture_output=True,
        text=True,
    )
    if toolchain.returncode != 0:
        raise CannotRunHere(f"{what} and Go refuses: {toolchain.stderr.strip()}", remedy)
