"""The cluster's own view of /run and /var, in a mount namespace of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.local_cluster]

_INSIDE = """
import sys
from pathlib import Path
from localcluster.node import view
kept = Path(sys.argv[1])
spare = kept / "clusters" / "x" / "view"
spare.mkdir(parents=True)
view.make_private(kept, spare)
assert (kept / "before").read_text() == "seen"
(kept / "after").write_text("written")
for covered in ("/run", "/var"):
    Path(covered, sys.argv[2]).touch()
"""


@pytest.mark.parametrize("below", ["/var/tmp", "/run", "/tmp"])
def test_the_cache_stays_and_nothing_else_gets_out(below: str) -> None:
    """Also where HOME lies below what is covered, as a build server's does."""
    with tempfile.TemporaryDirectory(dir=below) as folder:
        kept = Path(folder)
        (kept / "before").write_text("seen")
        stray = f"dtjob-stray-{os.getpid()}"
        inside = [sys.executable, "-c", _INSIDE, folder, stray]
        command = ["unshare", "--mount", "--propagation=private", *inside]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, check=True, env=environment)
        assert (kept / "after").read_text() == "written"
        assert not Path("/var", stray).exists()
        assert not Path("/run", stray).exists()
