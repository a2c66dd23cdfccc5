"""The hooks of .pre-commit-config.yaml can be run as they are written."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from ruamel.yaml import YAML

from tests.support.checkout import ROOT

(HOOKS,) = (
    repo["hooks"] for repo in YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"]
)


@pytest.mark.slow
@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_a_hook_passes_here(hook: dict[str, object]) -> None:
    files = [__file__] if hook.get("pass_filenames", True) else []
    subprocess.run([*shlex.split(str(hook["entry"])), *files], cwd=ROOT, check=True)
