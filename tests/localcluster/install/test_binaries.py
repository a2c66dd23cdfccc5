"""Which binaries there are, of which version."""

from __future__ import annotations

import pytest

from localcluster.base.errors import ClusterError
from localcluster.base.paths import go_modules
from localcluster.install import binaries

pytestmark = pytest.mark.usefixtures("empty_machine")
KUBERNETES = (binaries.KUBERNETES, binaries.OLDEST_KUBERNETES)


@pytest.mark.parametrize(
    "family",
    [*binaries.FAMILIES, binaries.KWOK, binaries.OLDEST_KUBERNETES],
    ids=lambda family: family.name,
)
def test_each_family_names_its_version_in_go_mod_alone(family: binaries.Family) -> None:
    assert family.version.startswith("v")
    assert family.folder.name == f"{family.name}-{family.version}"
    assert binaries.missing(family) == list(family.packages)


@pytest.mark.parametrize("family", KUBERNETES, ids=lambda family: family.name)
def test_the_binaries_know_their_version(family: binaries.Family) -> None:
    flags, version = binaries.linker_flags(family), family.version
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"-X k8s.io/component-base/version.gitMinor={version.split('.')[1]}" in flags


@pytest.mark.parametrize(
    ("family", "modules"), [(KUBERNETES[0], 33), (KUBERNETES[1], 31)], ids=["newest", "oldest"]
)
def test_all_staging_modules_have_the_version_of_kubernetes(
    family: binaries.Family, modules: int
) -> None:
    go_mod = (go_modules() / family.name / "go.mod").read_text()
    replaced = [line.split()[-1] for line in go_mod.splitlines() if " => k8s.io/" in line]
    assert len(replaced) == modules
    assert set(replaced) == {"v0." + family.version.removeprefix("v1.")}


def test_a_go_mod_without_the_module_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"names no version of example\.org/x"):
        binaries.required_version("require example.org/y v1.0.0\n", "example.org/x")
