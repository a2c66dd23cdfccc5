"""From an operator of the whole cluster to one of some namespaces, back, and away, by the page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.checkout import ROOT
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import install
from tests.support.pages import fenced
from tests.support.pages.sessions import Session

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGE = ROOT / "docs" / "cluster.md"
RIGHTS = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
TO_SOME, ONLY_SOME = "kubectl apply --server-side -k some", "-l dtjob.dev/install=cluster"
BACK, AWAY = "-l dtjob.dev/install=namespaces", "component!=ledgers"
# Its pods could not be started: there is no such image.
NO_PODS = """- patch: |
    $patch: delete
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: dtjob-operator
      namespace: dtjob-system
"""
Names = set[tuple[str, str, str]]


class Page:
    """The page's files in a folder, for two namespaces that are there, and its commands."""

    def __init__(self, admin: Kubectl, watched: list[str], folder: Path) -> None:
        self._admin, self._folder = admin, folder
        self.watched = watched
        programs, self._page = folder / "bin", folder / "page"
        for each in (programs, self._page):
            each.mkdir()
        kubectl = programs / "kubectl"
        kubectl.write_text(
            f'#!/bin/sh\nexec {admin.program} --kubeconfig={admin.kubeconfig} "$@"\n'
        )
        kubectl.chmod(0o755)
        self._environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        self._blocks = fenced.blocks(PAGE)
        Session(self._page, programs, self._here).do(self._blocks, set())
        for name, before in (("my", "patches:\n"), ("some", "")):
            with (self._page / name / "kustomization.yaml").open("a") as file:
                file.write(before + NO_PODS)

    def _here(self, text: str) -> str:
        for shown, there in zip(("research", "clinic"), self.watched, strict=True):
            text = text.replace(shown, there)
        return text

    def do(self, part: str, only: str = "") -> None:
        """Run the one block of the page that has this text in it, or its lines that have `only`."""
        (block,) = (each for each in self._blocks if each.kind == "demo" and part in each.text)
        for line in self._here(block.text).splitlines():
            if only in line:
                # The fixture has applied the same from its own side, which then owns it.
                command = line.replace("--server-side", "--server-side --force-conflicts")
                subprocess.run(
                    ["bash", "-c", command], check=True, cwd=self._page, env=self._environment
                )

    def installs(self, name: str) -> Names:
        """The rights in what is installed by one of the page's overlays."""
        rendered = YAML(typ="safe").load_all(self._admin("kustomize", str(self._page / name)))
        found = (each for each in rendered if each["kind"] in RIGHTS)
        return {(each["kind"], *_place(each["metadata"])) for each in found}

    def there(self) -> Names:
        """The rights of dtjob that are there, but for those of other namespaces."""
        kinds = ",".join(RIGHTS)
        labels = "--selector=app.kubernetes.io/part-of=dtjob"
        answer = YAML(typ="safe").load(self._admin("get", kinds, "-A", labels, "--output=yaml"))
        places = {"", self._admin.namespace, *self.watched}
        found = {(each["kind"], *_place(each["metadata"])) for each in answer["items"]}
        return {each for each in found if each[1] in places}


def _place(metadata: dict[str, str]) -> tuple[str, str]:
    return metadata.get("namespace", ""), metadata["name"]


@pytest.fixture
def page(
    installed: Kubectl, new_namespace: Callable[[], Kubectl], tmp_path: Path
) -> Iterator[Page]:
    """The page, and a cluster in which dtjob is installed as ever before and after."""
    page = Page(installed, [new_namespace().namespace for _ in range(2)], tmp_path)
    yield page
    install(installed)
    for kind, _namespace, name in page.installs("some") - page.installs("my"):
        installed("delete", kind, name, "--ignore-not-found")


def test_nothing_of_the_other_way_is_left(page: Page) -> None:
    for_all, for_some = page.installs("my"), page.installs("some")
    bindings = {("RoleBinding", namespace, "dtjob-operator") for namespace in page.watched}
    assert page.there() == for_all
    page.do(TO_SOME)
    assert page.there() == for_all | for_some | bindings
    page.do(ONLY_SOME)
    assert page.there() == for_some | bindings
    page.do(BACK)
    assert page.there() == for_all


def test_nothing_for_some_namespaces_is_left_when_dtjob_is_removed(page: Page) -> None:
    """The rest of what is removed goes by its file, and is only looked at."""
    page.do(TO_SOME)
    page.do(ONLY_SOME)
    page.do(AWAY, only="dtjob.dev/install")
    both = page.installs("my") & page.installs("some")
    assert page.there() == both
    page.do(BACK)
    page.do(AWAY, only="dtjob.dev/install")
    assert page.there() == both
