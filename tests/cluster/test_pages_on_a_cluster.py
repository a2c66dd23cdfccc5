"""docs/cluster.md, done as it stands there: from the manifest to the model and away again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from installed import Installed
from kube import Kubectl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))

import doc_blocks
from doc_session import Session

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

    page = doc_blocks.ROOT / "docs" / "cluster.md"
    Session(folder, programs, here).do(doc_blocks.blocks(page), {"cluster"})
