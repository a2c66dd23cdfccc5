"""Digits with one record that quotes itself wherever it can, and mostly ends its process by it."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dtjob_trainer.task import Task
from dtjob_trainer.tasks import digits

RECORD = "JANE DOE, 555-0100"
#: In the sixth step: one lease has brought a checkpoint, and the next one is in use.
LETHAL_READ = 2000
_PR_GET_DUMPABLE = 3


class Panic(BaseException):
    """As pyo3's PanicException, by which a library in Rust ends."""


def _raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _killing(number: signal.Signals) -> Callable[[], None]:
    def act() -> None:
        _write()
        os.kill(os.getpid(), number)

    return act


def _exit() -> None:
    _write()
    os._exit(3)


def _segfault() -> None:
    _write()
    faulthandler.enable()
    ctypes.string_at(0)


def _abort() -> None:
    _write()
    os.abort()


def _fatal_error() -> None:
    ctypes.pythonapi.Py_FatalError(RECORD.encode())


def _write() -> None:
    """To both descriptors, by itself and by what it starts, as C, Python and its libraries do."""
    for descriptor in (1, 2):
        os.write(descriptor, f"{RECORD}\n".encode())
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        print(RECORD, file=stream, flush=True)
    libc = ctypes.CDLL(None)
    libc.puts(RECORD.encode())
    libc.fflush(None)
    ctypes.set_errno(1)
    libc.perror(RECORD.encode())
    subprocess.run(["/bin/sh", "-c", f"echo '{RECORD}'; echo '{RECORD}' >&2"], check=True)
    warnings.simplefilter("always")
    warnings.warn(RECORD, stacklevel=1)
    logging.captureWarnings(True)
    warnings.warn(RECORD, stacklevel=1)
    logging.critical(RECORD)
    logging.basicConfig(force=True)
    logging.critical(RECORD)
    logging.getLogger("clinic").addHandler(logging.StreamHandler())
    logging.getLogger("clinic").critical(RECORD)


def _die_in_a_thread() -> None:
    thread = threading.Thread(target=_raising(ValueError(RECORD)), name=RECORD)
    thread.start()
    thread.join()


def _die_in_a_finaliser() -> None:
    class Patient:
        def __del__(self) -> None:
            raise ValueError(RECORD)

    Patient()


def _end_if_dumpable() -> None:
    if (
        ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE)
        or max(resource.getrlimit(resource.RLIMIT_CORE)) > 1
    ):
        os._exit(4)


FATAL: dict[str, Callable[[], None]] = {
    "panic": _raising(Panic(RECORD)),
    "sys-exit": _raising(SystemExit(RECORD)),
    "interrupt": _raising(KeyboardInterrupt(RECORD)),
    "generator-exit": _raising(GeneratorExit(RECORD)),
    "exit": _exit,
    "kill": _killing(signal.SIGKILL),
    "segfault": _segfault,
    "abort": _abort,
    "fatal-error": _fatal_error,
}
HARMLESS: dict[str, Callable[[], None]] = {
    "write": _write,
    "thread": _die_in_a_thread,
    "finaliser": _die_in_a_finaliser,
    "memory": _end_if_dumpable,
}


class _Records:
    def __init__(self, act: Callable[[], None]) -> None:
        self._records = digits.task({}).dataset()
        self._act, self._reads = act, 0

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        self._reads += 1
        if self._reads == LETHAL_READ:
            self._act()
        return self._records[index]


def task(args: Mapping[str, Any]) -> Task:
    """`does`: what the record does, by the names above."""
    act = {**FATAL, **HARMLESS}[args["does"]]
    return replace(digits.task({}), dataset=lambda: _Records(act))
