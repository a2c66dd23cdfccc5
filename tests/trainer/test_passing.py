"""Which exceptions another try may not meet again."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
from email.message import Message

import httpx
import pytest
import torch

from dtjob_trainer.passing import may_pass, was_not_there


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
    ],
    ids=repr,
)
def test_comes_again(error: Exception) -> None:
    assert not may_pass(error)


def test_what_was_merely_being_handled_counts_only_where_a_wrong_guess_costs_nothing() -> None:
    assert not may_pass(raised_while_handling(ConnectionError()), implied=False)
    assert may_pass(raised_from(ConnectionError()), implied=False)


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
