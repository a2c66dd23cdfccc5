"""What a rank's process prints: shown by its worker line by line, kept, and never waited for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtjob_trainer.worker import rank_output
from dtjob_trainer.worker.rank_output import RankOutput

#: Python's own streams, C's and a program's; its standard output is a file, where it could seek.
PROGRAM = """
import os, sys
from multiprocessing.connection import Connection
from dtjob_trainer.process import streams
from dtjob_trainer.worker import rank_output
print("before")
rank_output.take_over(Connection(int(sys.argv[1]), readable=False))
streams.take_standard_streams()
print("σ by Python")
print("an error", file=sys.stderr)
os.write(1, b"by descriptor\\n")
os.system("echo by a program")
print("unended", end="", flush=True)
os._exit(0)
"""


def test_all_that_a_process_prints_comes_in_order_whatever_it_printed_to_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, kept = bytearray(), bytearray()
    monkeypatch.setattr(rank_output, "show", shown.extend)
    before = tmp_path / "before"
    output = RankOutput(kept.extend)
    with output as child_end, before.open("wb") as file:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(child_end.fileno())],
            stdout=file,
            stderr=file,
            pass_fds=[child_end.fileno()],
            check=True,
        )
    asyncio.run(output.last_words())
    lines = "σ by Python\nan error\nby descriptor\nby a program\nunended"
    assert kept.decode() == shown.decode() == lines
    assert before.read_text() == "before\n"


def test_lines_are_shown_one_by_one_and_none_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[bytes] = []
    monkeypatch.setattr(rank_output, "show", shown.append)
    output = RankOutput(lambda _: None)
    lines = [f"{number:05} {'x' * 200}\n".encode() for number in range(3000)]
    with output as child_end:
        output_of = os.dup(child_end.fileno())
    for line in lines:
        os.write(output_of, line)
    os.close(output_of)
    asyncio.run(output.last_words())
    assert b"".join(shown) == b"".join(lines)
    assert set(shown) == set(lines)


def test_last_words_are_not_waited_for_where_something_else_holds_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rank_output, "_LAST_WORDS_SECONDS", 0.05)
    monkeypatch.setattr(rank_output, "show", lambda _: None)
    kept = bytearray()
    output = RankOutput(kept.extend)
    with output as child_end:
        held = os.dup(child_end.fileno())
    os.write(held, b"a pool of the task goes on\n")
    began = time.monotonic()
    asyncio.run(output.last_words())
    assert time.monotonic() - began < 60
    os.write(held, b"and is heard\n")
    os.close(held)
    asyncio.run(output.last_words())
    assert kept == b"a pool of the task goes on\nand is heard\n"


def test_a_log_that_takes_nothing_loses_lines_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_descriptor: int, _data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", broken)
    rank_output.show(b"lost\n")
