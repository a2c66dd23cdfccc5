"""Which exceptions another try may not meet again (docs/design/workers.md).

What torch, CUDA and its libraries report only as text is read here and nowhere else. The texts are
those of torch 2.15 with CUDA 13.2; a test provokes that of the CPU's allocator.

Nothing here imports torch: what raised one of its errors has done so.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: No restart brings a path that is not there.
NO_SUCH_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

# Python's errors of code and of the values that it is given, and all that derive from them.
_OF_CODE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
# Libraries that talk to others over a network; not all of their errors are an OSError.
_NETWORK = frozenset(
    {
        "aiohttp",
        "botocore",
        "grpc",
        "http",
        "httpcore",
        "httpx",
        "huggingface_hub",
        "requests",
        "urllib",
        "urllib3",
    }
)
# How libraries of all kinds name errors from outside. "Network" alone would be networkx.
_TELLING_NAME = re.compile(
    "Timeout|TimedOut|Connection|Disconnect|Unavailable|Transport|Throttl|Unreachable|RateLimit"
    "|TooManyRequests|SlowDown|ServerError|BadGateway|Retries|Transient|Temporar|Overload|Broken"
    "|OperationalError|Network(?:Error|Exception|Failure)|Service(?:Request|Response)Error"
    "|Incomplete(?:Read|Body)|^Dist(?:Backend|Store)Error$"
)
# Answers of a server that ask the client to come back: all others of the class 4xx will be the
# same for the same question.
_COME_BACK = frozenset({408, 409, 423, 425, 429})
# A server's answers for what is gone, or no longer allowed.
_NOT_TO_BE_HAD = frozenset({401, 403, 404, 410})
# The system's errors as libraries written in C++ or Rust put them into their messages.
_SYSTEMS_WORDS = tuple(
    os.strerror(number)
    for number in (
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EDQUOT,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.EMFILE,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
)
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "can't start new thread",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "std::bad_alloc",
    os.strerror(errno.ENOMEM),
)
# How torch's DataLoader reports the death of its processes.
_CHILD_IS_GONE = ("is killed by signal", "exited unexpectedly")
# Statuses of cuDNN and cuBLAS that concern the device, and not their input.
_OF_THE_DEVICE = ("ALLOC_FAILED", "NOT_INITIALIZED", "INTERNAL_ERROR", "EXECUTION_FAILED")
# Libraries whose errors are known: those that another try may not meet are listed above.
_KNOWN = sys.stdlib_module_names | {"dtjob_trainer", "numpy", "opacus", "torch"}


def may_pass(error: BaseException, *, in_doubt: bool = True) -> bool:
    """Whether time, another node or another process's end may be all that it takes.

    An error that was raised from another one passes with it: libraries wrap what the network did
    to them.

    Parameters
    ----------
    in_doubt
        The answer where a wrong one costs little: count what was merely being handled when it was
        raised, too, and errors that only a library knows. No list of libraries is whole. False
        where a wrong guess spends a lease each time.
    """
    if any(_passes(one) for one in _with_causes(error, implied=in_doubt)):
        return True
    *_, root = _with_causes(error, implied=False)
    return in_doubt and not _comes_again(root)


def was_not_there(error: BaseException) -> bool:
    """Whether a path, a module or what a server was asked for was missing.

    Where it was before, it may be again: a mount, a folder of temporary files, a credential that
    is renewed.
    """
    return any(
        isinstance(one, (*NO_SUCH_PATH, ImportError)) or _status(one) in _NOT_TO_BE_HAD
        for one in _with_causes(error, implied=False)
    )


def wants_memory(error: BaseException) -> bool:
    """Whether there was no memory, or no thread, left.

    The CPU's allocator raises a RuntimeError that differs from others only by its message.
    """
    if isinstance(error, MemoryError) or _is_torchs(error, "OutOfMemoryError"):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _says(error, _NO_MEMORY)


def of_the_device(error: BaseException) -> bool:
    """Whether the GPU or its driver failed, and not what it was given.

    A device-side assertion is a kernel that refused its input, such as a label out of range; it
    would again.
    """
    if not isinstance(error, RuntimeError):
        return False
    message = str(error)
    if _is_torchs(error, "AcceleratorError") or "CUDA error" in message:
        return "device-side assert" not in message
    return any(
        f"{library}_STATUS_{status}" in message
        for library in ("CUDNN", "CUBLAS")
        for status in _OF_THE_DEVICE
    )


def _passes(error: BaseException) -> bool:
    """Whether it shows that something beside the task failed, which may not fail again."""
    if wants_memory(error) or of_the_device(error):
        return True
    if isinstance(error, (*NO_SUCH_PATH, *_OF_CODE)) or not isinstance(error, Exception):
        return False  # what was asked for is wrong, in form or in place
    status = _status(error)
    if status is not None:
        return not 400 <= status < 500 or status in _COME_BACK
    return (
        isinstance(error, OSError)
        or not _packages(error).isdisjoint(_NETWORK)
        or any(_TELLING_NAME.search(kind.__name__) for kind in type(error).__mro__)
        or _says(error, (*_SYSTEMS_WORDS, *_CHILD_IS_GONE))
    )


def _comes_again(error: BaseException) -> bool:
    """Whether an error that shows no sign of passing is known to recur: of code, or the task's own.

    All else is an error of a library that nothing is known of.
    """
    if isinstance(error, EOFError):
        return False  # a file that is too short, or a process that has gone
    if isinstance(error, (OSError, *_OF_CODE)) or not isinstance(error, Exception):
        return True
    kind = type(error)
    if _package(kind) in _KNOWN or 400 <= (_status(error) or 0) < 500:
        return True
    # What is not installed was written for this task.
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    libraries = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    return file is not None and not any(Path(file).is_relative_to(path) for path in libraries)


def _status(error: BaseException) -> int | None:
    """The status of a server's answer from which its client made an error."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    for holder, name in (
        (answer, "status_code"),
        (answer, "status"),
        (error, "status_code"),
        (error, "status"),
        (error, "http_status"),
        (error, "code"),
    ):
        status = getattr(holder, name, None)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600:
            return int(status)
    return None


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    message = str(error)
    return any(word in message for word in words)


def _packages(error: BaseException) -> set[str]:
    return {_package(kind) for kind in type(error).__mro__}


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _is_torchs(error: BaseException, name: str) -> bool:
    kind = getattr(sys.modules.get("torch"), name, None)
    return kind is not None and isinstance(error, kind)


def _with_causes(error: BaseException, *, implied: bool) -> Iterator[BaseException]:
    """An exception and those that it was raised from, each once."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        handled = one.__context__ if implied and not one.__suppress_context__ else None
        one = one.__cause__ or handled
