"""A forked process is like one that was executed, but for what is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import ROOT
from tests.support.gangs.zygote import GANG, Forked

pytestmark = pytest.mark.processes

PROGRAM = """
import json, multiprocessing, os, random, signal, sys

def signals():
    return {n: str(signal.getsignal(n)).split(" at ")[0] for n in signal.valid_signals()}

def descriptors():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # the folder that was listed
    return found

def child(pipe):
    pipe.send((os.getppid(), random.random(), signals()))

if __name__ == "__main__":
    result = {
        "leads its session": os.getsid(0) == os.getpid() == os.getpgid(0),
        "arguments": sys.argv,
        "environment": {k: v for k, v in os.environ.items() if k != "LC_CTYPE"},
        "folder": os.getcwd(),
        "descriptors": descriptors(),
        "signals": signals(),
        "paths": sys.path,
        "main": os.path.basename(sys.modules["__main__"].__file__),
    }
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    parent, number, in_child = ours.recv()
    process.join()
    result["child"] = {"is a grandchild": parent != os.getpid(), "signals": in_child}
    print(json.dumps([result, number]), flush=True)
    os._exit(7)
"""


def test_a_forked_process_is_like_an_executed_one(tmp_path: Path) -> None:
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM)
    arguments = [str(program), "a", "b"]
    environment = {**os.environ, "SAID": "hello", "PYTHONPATH": str(tmp_path / "tasks")}
    log.touch()
    with log.open("ab") as output:
        executed = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            check=False,
            timeout=60,
        ).returncode
    forked = [Forked(GANG, arguments, log, environment) for _ in range(2)]
    assert [executed, *(process.wait(60) for process in forked)] == [7, 7, 7], log.read_text()
    said: list[tuple[dict[str, Any], float]] = [
        json.loads(line) for line in log.read_text().splitlines()
    ]
    (real, _), (one, first), (other, second) = said
    assert one == other == real
    assert first != second, "they share their random numbers"


def test_what_is_forked_finds_the_library_whoever_has_put_it_on_the_path() -> None:
    """As `library_first` does, in whatever process of the tests loads a task."""
    library = os.path.dirname(os.__file__)
    program = "from tests.support.gangs.zygote_process import _ANYBODYS; print(*_ANYBODYS)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([library, str(ROOT)])}
    command = [sys.executable, "-c", program]
    assert library in subprocess.check_output(command, env=environment, text=True).split()


def test_a_forked_process_is_killed_and_reaped(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time\ntime.sleep(600)\n")
    process = Forked(GANG, [str(program)], tmp_path / "log", dict(os.environ))
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()
    process.send_signal(signal.SIGKILL)  # to nobody: the number may be another's by now


def test_threads_of_a_test_may_look_at_a_process_while_others_end_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time\ntime.sleep(600)\n")
    for _ in range(3):
        process = Forked(GANG, [str(program)], tmp_path / "log", dict(os.environ))
        with ThreadPoolExecutor(8) as threads:
            looks = [threads.submit(process.wait, 60) for _ in range(7)]
            threads.submit(process.send_signal, signal.SIGKILL).result()
            assert {look.result() for look in looks} == {-signal.SIGKILL}
