"""Installing packages with apt-get, beside whatever else installs packages on this machine.

A fresh machine upgrades itself for minutes after its first start, and apt-get refuses to run
meanwhile.
"""

from __future__ import annotations

import os
import re
import subprocess
import time

from localcluster.base.progress import Stage

LONGEST_WAIT = 1800.0
_TRY_AGAIN_SECONDS = 2.0
_HELD = re.compile(
    r"Could not get lock (?P<lock>\S+?)[.,]? (?:It is held by (?P<holder>process \d+ \(.*?\)))?"
)
_INTERRUPTED = "dpkg --configure -a"


def install(stage: Stage, packages: list[str]) -> str:
    """Install `packages`; what apt-get complains of, empty if they are there.

    A package that is there is left as it is, and none is removed to make place for another. What
    an earlier apt-get left half configured, because it was ended, is configured first.

    Parameters
    ----------
    stage
        Whose note says what is waited for.
    packages
        Their names.
    """
    failed = _install(stage, packages)
    if _INTERRUPTED in failed:
        stage.note = "configuring what was interrupted"
        _run(_INTERRUPTED.split())
        failed = _install(stage, packages)
    if failed:  # the lists may be too old for its archives, or not there at all
        update = _apt_get(stage, "update")  # of a source that is not needed it may complain too
        failed = _install(stage, packages)
        return f"{failed} {update}".rstrip() if failed else ""
    return ""


def _install(stage: Stage, packages: list[str]) -> str:
    return _apt_get(stage, "install", "-y", "--no-remove", "--no-install-recommends", *packages)


def _apt_get(stage: Stage, *arguments: str) -> str:
    """Run apt-get once nobody else does; the end of its complaint, empty if it has none.

    Not by `DPkg::Lock::Timeout`: apt-get then waits in silence, and for dpkg's locks alone, while
    those of its lists and its archives fail at once.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        complaint = _run(["apt-get", "-qq", "--option=DPkg::Lock::Timeout=0", *arguments])
        held = _HELD.search(complaint)
        if held is None or time.monotonic() > deadline:
            stage.note = ""
            return complaint
        stage.note = f"waiting for {held['holder'] or 'the process'} that holds {held['lock']}"
        time.sleep(_TRY_AGAIN_SECONDS)


def _run(argv: list[str]) -> str:
    done = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )
    if done.returncode == 0:
        return ""
    return " ".join(done.stderr.split()[-60:]) or f"exit code {done.returncode}"
