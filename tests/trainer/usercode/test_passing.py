"""Which exceptions another try may not meet again."""

from __future__ import annotations

import http.client
import os
import pickle
import ssl
import subprocess
import sys
import urllib.error
import zipfile
from concurrent.futures.process import BrokenProcessPool
from email.message import Message
from types import ModuleType

import httpx
import pytest
import torch

from dtjob_trainer.usercode.passing import may_pass, wants_memory, was_not_there


def of_a_library(name: str, base: type[Exception] = Exception, **fields: object) -> Exception:
    """An error that a library raises which is not installed here."""
    module, _, kind = name.rpartition(".")
    error: Exception = type(kind, (base,), {"__module__": module})("no")
    for field, value in fields.items():
        setattr(error, field, value)
    return error


# What says itself that it passes, whoever raises it.
TELLING = [
    of_a_library("google.api_core.exceptions.ServiceUnavailable", code=503),
    of_a_library("google.auth.exceptions.TransportError"),
    of_a_library("azure.core.exceptions.ServiceRequestError"),
    of_a_library("azure.core.exceptions.HttpResponseError", status_code=503),
    of_a_library("gcsfs.retry.HttpError", code=503),
    of_a_library("minio.error.ServerError", status_code=502),
    of_a_library("botocore.exceptions.ConnectTimeoutError"),
    of_a_library("boto3.exceptions.RetriesExceededError"),
    of_a_library("s3transfer.exceptions.RetriesExceededError"),
    of_a_library("redis.exceptions.ConnectionError"),
    of_a_library("psycopg.OperationalError"),
    of_a_library("openai.RateLimitError", status_code=429),
    of_a_library("a.b.Refused", http_status=500),
    BrokenProcessPool("A process in the process pool was terminated abruptly"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
    RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
    RuntimeError("unable to mmap 128 bytes from file </torch_1>: Cannot allocate memory (12)"),
    RuntimeError("unable to write to file </torch_1>: No space left on device (28)"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: unspecified launch failure"),
    of_a_library("safetensors_rust.SafetensorError", args=("Os { code: 5: Input/output error }",)),
]

# What only its library could judge.
UNKNOWN = [
    of_a_library("boto3.exceptions.Boto3Error"),
    of_a_library("safetensors_rust.SafetensorError"),
    of_a_library("nobody.knows.Error"),
    EOFError(),
]


def answered(status: int) -> list[Exception]:
    """What two clients raise for an answer: one of them is an OSError, the other is not."""
    answer = httpx.Response(status, request=httpx.Request("GET", "http://hub.test"))
    try:
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        mine = error
    return [mine, urllib.error.HTTPError("http://hub.test", status, "no", Message(), None)]


def raised_from(cause: BaseException) -> ValueError:
    try:
        raise ValueError("no weights") from cause
    except ValueError as error:
        return error


def raised_while_handling(handled: BaseException, *, hiding: bool = False) -> ValueError:
    try:
        try:
            raise handled
        except BaseException:
            if hiding:
                raise ValueError("no weights") from None
            raise ValueError("no weights")  # noqa: B904
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        PermissionError("not now"),
        ConnectionResetError(),
        TimeoutError(),
        urllib.error.URLError("no route to host"),
        http.client.IncompleteRead(b""),
        httpx.ConnectError("refused"),
        *(error for status in (408, 429, 500, 503) for error in answered(status)),
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        torch.OutOfMemoryError("CUDA out of memory"),
        raised_from(ConnectionError()),
        raised_while_handling(ConnectionError()),
        *TELLING,
        *UNKNOWN,
    ],
    ids=repr,
)
def test_passes(error: Exception) -> None:
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes do not fit"),
        KeyError("x"),
        FileNotFoundError("weights.pt"),
        IsADirectoryError("weights"),
        *(error for status in (401, 403, 404) for error in answered(status)),
        ssl.SSLCertVerificationError("self-signed"),
        RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        raised_from(KeyError("x")),
        raised_while_handling(FileNotFoundError("weights.pt")),
        raised_while_handling(ConnectionError(), hiding=True),
        Exception("no such column"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x1)"),
        pickle.PicklingError("a lock"),
        zipfile.BadZipFile("no archive"),
        subprocess.CalledProcessError(1, "gcc"),
        torch.jit.Error("no such operator"),
        of_a_library("google.api_core.exceptions.NotFound", code=404),
        of_a_library("azure.core.exceptions.HttpResponseError", status_code=403),
        of_a_library("pydantic.ValidationError", base=ValueError),
        of_a_library("networkx.exception.NetworkXError", base=KeyError),
        KeyError("Cannot allocate memory"),
    ],
    ids=repr,
)
def test_comes_again(error: Exception) -> None:
    assert not may_pass(error)


@pytest.mark.parametrize("error", TELLING, ids=repr)
def test_what_tells_that_it_passes_does_so_where_a_wrong_guess_spends_a_lease(
    error: Exception,
) -> None:
    assert may_pass(error, in_doubt=False)


@pytest.mark.parametrize("error", [*UNKNOWN, RuntimeError("no"), Exception("no")], ids=repr)
def test_what_tells_nothing_is_tried_again_only_where_that_costs_little(error: Exception) -> None:
    assert not may_pass(error, in_doubt=False)


def test_an_error_that_the_task_defines_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    task, library = ModuleType("clinic.errors"), ModuleType("library.errors")
    task.__file__ = "/src/clinic/errors.py"
    library.__file__ = os.path.join(os.path.dirname(pytest.__file__), "errors.py")
    monkeypatch.setitem(sys.modules, "clinic.errors", task)
    monkeypatch.setitem(sys.modules, "library.errors", library)
    assert not may_pass(of_a_library("clinic.errors.BadConfiguration"))
    assert may_pass(of_a_library("library.errors.BadConfiguration"))


def test_a_library_that_wraps_an_error_of_code_says_nothing_else() -> None:
    wrapped = of_a_library("hydra.errors.InstantiationException")
    wrapped.__cause__ = TypeError("unexpected keyword")
    assert not may_pass(wrapped)
    wrapped.__cause__ = of_a_library("nobody.knows.Error")
    assert may_pass(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        OSError(12, "Cannot allocate memory"),
        RuntimeError("unable to mmap 128 bytes from file </torch_1>: Cannot allocate memory (12)"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=repr,
)
def test_want_of_memory_is_known_as_such(error: Exception) -> None:
    assert wants_memory(error)


def test_what_was_merely_being_handled_counts_only_where_a_wrong_guess_costs_nothing() -> None:
    assert not may_pass(raised_while_handling(ConnectionError()), in_doubt=False)
    assert may_pass(raised_from(ConnectionError()), in_doubt=False)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("weights.pt"),
        NotADirectoryError("weights"),
        IsADirectoryError("weights"),
        ModuleNotFoundError("clinic"),
        ImportError("libclinic.so: cannot open shared object file"),
        *(error for status in (401, 403, 404, 410) for error in answered(status)),
        raised_from(FileNotFoundError("weights.pt")),
    ],
    ids=repr,
)
def test_was_not_there(error: Exception) -> None:
    assert was_not_there(error)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError("no such file"),
        *(error for status in (400, 422) for error in answered(status)),
        raised_while_handling(FileNotFoundError("weights.pt")),
    ],
    ids=repr,
)
def test_was_wrong(error: Exception) -> None:
    assert not was_not_there(error)
