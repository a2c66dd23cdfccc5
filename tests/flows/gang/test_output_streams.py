"""A stream that can't be written to makes nobody fail: neither a process's log nor its task."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dtjob_trainer.process import logs
from dtjob_trainer.process.streams import Unfailing, unfailing

# A task prints, a log is written, and what is printed is dropped at the first private read.
PROGRAM = """
import os, sys
from dtjob_trainer.process import confine, logs, streams
os.close(0)
streams.take_standard_streams()
log = logs.own_logger(confine.keep_own_log(), component="rank")
for _ in range(3):
    print("σ = 2.2", "x" * 10_000)
    print("σ = 2.2", file=sys.stderr)
    sys.stdout.flush()
    log.info("σ")
confine.drop_task_output()
print("private")
os.write(int(sys.argv[1]), b"done")
os._exit(0)
"""


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["closed_pipe", "full_disk"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_process_goes_on_whose_output_is_lost(kind, encoding, request):
    descriptor = request.getfixturevalue(kind)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as output:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(writer)],
            stdout=descriptor,
            stderr=descriptor,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            pass_fds=(writer,),
            check=False,
        )
        os.close(writer)
        assert output.read() == b"done"
    assert done.returncode == 0


def test_characters_that_an_encoding_lacks_are_written_as_escapes():
    held = io.BytesIO()
    stream: Any = unfailing(io.TextIOWrapper(held, encoding="ascii"))
    stream.write("ε = 8, file \udcff")
    stream.flush()
    assert held.getvalue() == rb"\u03b5 = 8, file \udcff"
    assert stream.failure is None


def test_the_first_failure_is_kept_and_a_closed_stream_is_one():
    stream = io.StringIO()
    kept = Unfailing(stream)
    stream.close()
    assert kept.write("lost") == 4
    kept.writelines(["lost", "too"])
    kept.flush()
    assert isinstance(kept.failure, ValueError)


def test_a_log_line_is_json_whatever_the_stream():
    held = io.BytesIO()
    stream = io.TextIOWrapper(held, encoding="ascii")
    logs.own_logger(stream).info("σ 😀", detail="ε\udcff")
    line = json.loads(held.getvalue())
    assert (line["message"], line["detail"]) == ("σ 😀", "ε\udcff")
