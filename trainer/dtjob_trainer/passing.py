"""Which exceptions another try may not meet again (docs/design/workers.md).

Nothing here imports torch: what raised one of its errors has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

#: No restart brings a path that is not there.
NO_SUCH_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

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
# Answers of a server that tell the client to come back: all others of the class 4xx will be the
# same for the same question.
_COME_BACK = frozenset({408, 409, 423, 425, 429})
# What a server says of what is gone, or no more allowed.
_NOT_TO_BE_HAD = frozenset({401, 403, 404, 410})
# What cuDNN and cuBLAS say of the device, and not of what they were given.
_OF_THE_DEVICE = ("ALLOC_FAILED", "NOT_INITIALIZED", "INTERNAL_ERROR", "EXECUTION_FAILED")


def may_pass(error: BaseException, *, implied: bool = True) -> bool:
    """Whether time, another node or another process's end may be all that it takes.

    An error that was raised from another one passes with it: libraries wrap what the network did
    to them.

    Parameters
    ----------
    implied
        Count what was merely being handled when it was raised, too. Not where a wrong guess
        spends a lease each time.
    """
    return any(
        wants_memory(one) or of_the_device(one) or _of_the_world_outside(one)
        for one in _with_causes(error, implied=implied)
    )


def was_not_there(error: BaseException) -> bool:
    """Whether a path, a module or what a server was asked for was not to be had.

    Where it was before, it may be again: a mount, a folder of temporary files, a credential that
    is renewed.
    """
    return any(
        isinstance(one, (*NO_SUCH_PATH, ImportError)) or _answer(one) in _NOT_TO_BE_HAD
        for one in _with_causes(error, implied=False)
    )


def wants_memory(error: BaseException) -> bool:
    """Whether there was no memory, or no thread, left.

    The CPU's allocator raises a RuntimeError that only its message tells from others.
    """
    if isinstance(error, MemoryError) or _is_torchs(error, "OutOfMemoryError"):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in said or "can't start new thread" in said
    )


def of_the_device(error: BaseException) -> bool:
    """Whether the GPU or its driver failed, and not what it was given.

    A device-side assertion is a kernel that refused its input, such as a label out of range; it
    would again.
    """
    said = str(error)
    if _is_torchs(error, "AcceleratorError"):
        return "device-side assert" not in said
    return isinstance(error, RuntimeError) and any(
        f"{library}_STATUS_{status}" in said
        for library in ("CUDNN", "CUBLAS")
        for status in _OF_THE_DEVICE
    )


def _of_the_world_outside(error: BaseException) -> bool:
    """Whether a file system, a network or whoever answers there failed."""
    if isinstance(error, (*NO_SUCH_PATH, ValueError)):
        return False  # what was asked for is wrong, in form or in place
    answer = _answer(error)
    if answer is not None:
        return not 400 <= answer < 500 or answer in _COME_BACK
    return _from_outside(error)


def _from_outside(error: BaseException) -> bool:
    """Whether it is an error of the system, or of a library that talks over a network."""
    return isinstance(error, OSError) or any(
        kind.__module__.partition(".")[0] in _NETWORK for kind in type(error).__mro__
    )


def _answer(error: BaseException) -> int | None:
    """The status of a server's answer; None where the error is of none."""
    return _status(error) if _from_outside(error) else None


def _status(error: BaseException) -> int | None:
    """The status of the answer that an HTTP client made an error of."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for holder, name in (
        (answer, "status_code"),
        (answer, "status"),
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
    ):
        found = getattr(holder, name, None)
        if isinstance(found, int) and not isinstance(found, bool) and 100 <= found < 600:
            return found
    return None


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
