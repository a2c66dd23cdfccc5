"""What several checkouts of a machine share is set up by all of them at once."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.support.checkout import ROOT

# `python3 -m venv FOLDER`, whose pip waits until two of them are at work.
PYTHON3 = """#!/bin/sh
folder=$3
mkdir -p "$folder/bin"
cat > "$folder/bin/python" <<END
#!/bin/sh
: > {met}/\\$\\$
for i in \\$(seq 600); do [ \\$(ls {met} | wc -l) -ge 2 ] && break; sleep 0.05; done
printf '#!/bin/sh\\n' > "$folder/bin/uv" && chmod +x "$folder/bin/uv"
END
chmod +x "$folder/bin/python"
"""


def test_two_checkouts_install_uv_at_once(tmp_path: Path) -> None:
    for name in ("bin", "met"):
        (tmp_path / name).mkdir()
    python3 = tmp_path / "bin" / "python3"
    python3.write_text(PYTHON3.format(met=tmp_path / "met"))
    python3.chmod(0o755)
    version = re.search(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version
    cache = tmp_path / "cache"
    uv = cache / f"uv-{version[1]}" / "bin" / "uv"
    environment = os.environ | {
        "DTJOB_CACHE": str(cache),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    both = [
        subprocess.Popen(["make", str(uv)], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [(each.communicate(timeout=100)[1], each.returncode) for each in both]
    assert ended == [(b"", 0), (b"", 0)]
    assert os.access(uv, os.X_OK)
    assert [each.name for each in cache.iterdir()] == [f"uv-{version[1]}"]


def test_a_folder_without_uv_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python3 = tmp_path / "bin" / "python3"
    python3.write_text('#!/bin/sh\nmkdir -p "$3/bin"; cp /bin/true "$3/bin/python"\n')
    python3.chmod(0o755)
    made = (ROOT / "Makefile").read_text().split("UV_VERSION := ")[1].split()[0]
    left = tmp_path / "cache" / f"uv-{made}" / "lib"
    left.mkdir(parents=True)
    environment = os.environ | {
        "DTJOB_CACHE": str(tmp_path / "cache"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    argv = ["make", f"{left.parent}/bin/uv"]
    failed = subprocess.run(
        argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert failed.returncode != 0
    assert f"{left.parent} lacks uv: remove it and run make again" in failed.stdout
