"""The process behind `zygote`: loads the modules it is given, then forks as it is asked.

Standard input is the socket on which it is asked, one JSON object a line; it ends with the other
side.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import multiprocessing.util
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any


def fork(body: Callable[[], object], *, keep: Collection[int], streams: Mapping[int, int]) -> int:
    """Fork a process that is like a new program: as if executed, but with its modules loaded.

    Parameters
    ----------
    keep
        Descriptors that it keeps, beside its standard streams.
    streams
        What a standard stream is connected with, where it is not the parent's.
    """
    if pid := os.fork():
        return pid
    code = 1
    try:
        _become_new(keep, streams)
        body()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the body has closed it
            stream.flush()


def _become_new(keep: Collection[int], streams: Mapping[int, int]) -> None:
    gc.freeze()  # what the parent had open is never collected here: its numbers are others' now
    asyncio._set_running_loop(None)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, descriptor in streams.items():
        os.dup2(descriptor, stream)
    first = 3
    for descriptor in sorted({*keep, os.sysconf("SC_OPEN_MAX")}):
        os.closerange(first, descriptor)
        first = descriptor + 1
    random.seed()


def spawn_by_fork(_path: bytes, arguments: Sequence[str], descriptors: Collection[int]) -> int:
    """Stands in for `multiprocessing.util.spawnv_passfds`, which runs `python -c COMMAND`."""
    command = arguments[arguments.index("-c") + 1]
    return fork(lambda: exec(command, {"__name__": "__main__"}), keep=descriptors, streams={})


class HelperByFork:
    """Stands in for the `subprocess.Popen` of the accounting helper."""

    def __init__(self, arguments: Sequence[str], **_options: Any) -> None:
        module = arguments[arguments.index("-m") + 1]

        def run() -> None:
            os.setsid()
            warnings.simplefilter("ignore")
            runpy.run_module(module, run_name="__main__")

        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self.pid = fork(run, keep=(), streams={0: theirs_in, 1: theirs_out})
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin = os.fdopen(ours_in, "w", encoding="utf-8")
        self.stdout = os.fdopen(ours_out, "r", encoding="utf-8")
        self._lock = threading.Lock()
        self._status: int | None = None

    def kill(self) -> None:
        with self._lock:
            if self._status is None:
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        with self._lock:
            if self._status is None:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


# Asked for, since PYTHONPATH here may name folders of the library too.
_ISOLATED = [sys.executable, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
_ANYBODYS: list[str] = json.loads(subprocess.check_output(_ISOLATED))
"""Where every Python looks for modules."""


def start(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> int:
    """Fork a process that executes a Python file, its output at the end of `log`."""

    def run() -> None:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = list(arguments)
        given = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:] = dict.fromkeys([os.path.dirname(arguments[0]), *given, *_ANYBODYS])
        runpy.run_path(arguments[0], run_name="__main__")

    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    pid = fork(run, keep=(), streams={0: nothing, 1: written, 2: written})
    os.close(written)
    os.close(nothing)
    return pid


def poll(pid: int) -> int | None:
    """Reap a process that has ended."""
    reaped, status = os.waitpid(pid, os.WNOHANG)
    return status if reaped else None


def main() -> None:
    channel = socket.socket(fileno=os.dup(0)).makefile("rwb")
    for name in sys.argv[1:]:
        importlib.import_module(name)
    util: Any = multiprocessing.util
    util.spawnv_passfds = spawn_by_fork
    helper: Any = sys.modules["dtjob_accounting.process"]
    helper.subprocess = types.SimpleNamespace(Popen=HelperByFork, PIPE=subprocess.PIPE)
    for line in channel:
        question = json.loads(line)
        answer = (
            poll(question["poll"])
            if "poll" in question
            else start(question["start"], question["log"], question["environment"])
        )
        channel.write(json.dumps(answer).encode() + b"\n")
        channel.flush()


if __name__ == "__main__":
    main()
