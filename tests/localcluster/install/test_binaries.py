"""Which binaries there are, of which version."""

from __future__ import annotations

import pytest

from localcluster.base.errors import ClusterError
from localcluster.base.paths import go_modules
from localcluster.install import binaries

pytestmark = pytest.mark.usefixtures("empty_machine")


@pytest.mark.parametrize(
    "family", [*binaries.FAMILIES, binaries.KWOK], ids=lambda family: family.name
)
def test_each_family_names_its_version_in_go_mod_alone(family: binaries.Family) -> None:
    assert family.version.startswith("v")
    assert family.folder.name == f"{family.name}-{family.version}"
    assert binaries.missing(family) == list(family.packages)


def test_the_binaries_know_their_version() -> None:
    flags = binaries.linker_flags(binaries.KUBERNETES)
    version = binaries.KUBERNETES.version
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"-X k8s.io/component-base/version.gitMinor={version.split('.')[1]}" in flags


def test_all_staging_modules_have_the_version_of_kubernetes() -> None:
    go_mod = (go_modules() / "kubernetes" / "go.mod").read_text()
    replaced = [line.split()[-1] for line in go_mod.splitlines() if " => k8s.io/" in line]
    version = binaries.required_version(go_mod, "k8s.io/kubernetes")
    assert len(replaced) == 33
    assert set(replaced) == {"v0." + version.removeprefix("v1.")}


def test_a_go_mod_without_the_module_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"names no version of example\.org/x"):
        binaries.required_version("require example.org/y v1.0.0\n", "example.org/x")
