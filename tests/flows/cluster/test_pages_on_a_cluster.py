"""docs/cluster.md, done as it stands there: from the manifest to the model and away again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl
from tests.support.pages import fenced
from tests.support.pages.sessions import Session

pytestmark = [pytest.mark.pages, pytest.mark.cluster, pytest.mark.timeout(1200)]

_PAGE_IMAGE = "registry.example/dtjob/trainer:0.1.0"
_PAGE_UID = "1a2b3c4d"


def test_page(installed: Installed, namespace: Kubectl, tmp_path: Path) -> None:
    def here(text: str) -> str:
        text = text.replace(_PAGE_IMAGE, installed.worker_image)
        if _PAGE_UID in text and (job := namespace.get("dtjob", "digits")):
            text = text.replace(_PAGE_UID, job["metadata"]["uid"][:8])
        return text

    programs, folder = tmp_path / "bin", tmp_path / "page"
    programs.mkdir()
    folder.mkdir()
    kubectl = programs / "kubectl"
    arguments = f"--kubeconfig={namespace.kubeconfig} --namespace={namespace.namespace}"
    kubectl.write_text(f'#!/bin/sh\nexec {namespace.program} {arguments} "$@"\n')
    kubectl.chmod(0o755)

    page = ROOT / "docs" / "cluster.md"
    Session(folder, programs, here).do(fenced.blocks(page), {"cluster"})
