"""The helper process: same figures, survives its deaths, and dies with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dtjob_accounting import draws, pld
from dtjob_accounting.plan import PlanError, PlanRequest, make_plan
from dtjob_accounting.process import HelperFailed, PldProcess
from dtjob_accounting.report_figures import figures

pytestmark = pytest.mark.processes

RATE = draws.sample_rate(256, 1437)
# Computed for 15 s: nobody comes too late to meet it waiting.
HARD = (0.5, 1e-9, 1e-5, 10**6)


@pytest.fixture
def helper() -> Iterator[PldProcess]:
    with PldProcess() as process:
        yield process


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Zombies count as running: nobody reaped them."""
    return Path(f"/proc/{pid}").exists()


def test_answers_equal_the_modules_and_are_kept(helper: PldProcess) -> None:
    first = helper.submit_noise_multiplier(8, 1e-5, RATE, 366)
    assert helper.submit_noise_multiplier(8, 1e-5, RATE, 366) is first
    sigma = first.result(timeout=120)
    assert sigma == pld.noise_multiplier(8, 1e-5, RATE, 366)
    assert helper.epsilon(sigma, RATE, 366, 1e-5) == pld.epsilon(sigma, RATE, 366, 1e-5)
    segments = [(sigma, RATE, 100), (sigma, RATE, 3)]
    assert helper.submit_epsilon_of_segments(segments, 1e-5).result(120) == (
        pld.epsilon_of_segments(segments, 1e-5)
    )
    assert helper.submit_figures(segments, 1e-5).result(120) == figures(segments, 1e-5, pld)
    assert helper.version() == pld.version()


def test_a_plan_by_the_helper_equals_one_by_the_module(helper: PldProcess) -> None:
    request = PlanRequest(
        dataset_size=1437, batch_size=256, steps=336, epsilon=8, max_grad_norm=1.0
    )
    assert make_plan(request, helper) == make_plan(request, pld)


def test_refusals_cross_the_process_border(helper: PldProcess) -> None:
    with pytest.raises(PlanError) as refusal:
        helper.noise_multiplier(1e-9, 1e-9, 1.0, 1000)
    assert refusal.value.field == "spec.privacy.epsilon"
    assert refusal.value.value == 1e-9
    assert "raise epsilon" in refusal.value.remedy


def test_asyncio_code_can_wait_and_give_up_without_harm(helper: PldProcess) -> None:
    async def ask() -> float:
        asked = asyncio.wrap_future(helper.submit_epsilon(2.203, RATE, 366, 1e-5))
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        return await asyncio.wrap_future(helper.submit_epsilon(2.203, RATE, 366, 1e-5))

    assert asyncio.run(ask()) == pld.epsilon(2.203, RATE, 366, 1e-5)


def test_what_stops_a_whole_group_is_for_the_caller_to_hear(helper: PldProcess) -> None:
    helper.version()
    first = helper._helper.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(first, number)
    assert helper.epsilon(2.203, RATE, 45, 1e-5) == pld.epsilon(2.203, RATE, 45, 1e-5)
    assert helper._helper.pid == first


def test_a_killed_helper_is_started_again_with_what_waits(helper: PldProcess) -> None:
    first = helper._helper.pid
    os.kill(first, signal.SIGSTOP)  # it answers nothing before it is killed
    waiting = [helper.submit_epsilon(2.203, RATE, count, 1e-5) for count in (10, 20, 30)]
    os.kill(first, signal.SIGKILL)
    assert [f.result(timeout=120) for f in waiting] == [
        pld.epsilon(2.203, RATE, count, 1e-5) for count in (10, 20, 30)
    ]
    assert helper._helper.pid != first
    assert not is_running(first)  # reaped


def test_a_helper_killed_while_idle_is_started_by_the_next_question(helper: PldProcess) -> None:
    helper.version()
    first = helper._helper.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first))
    assert helper.epsilon(2.203, RATE, 40, 1e-5) == pld.epsilon(2.203, RATE, 40, 1e-5)


def test_a_question_that_keeps_killing_the_helper_fails(helper: PldProcess) -> None:
    asked = helper.submit_noise_multiplier(*HARD)
    while not asked.done():
        with contextlib.suppress(ProcessLookupError):
            os.kill(helper._helper.pid, signal.SIGKILL)
        time.sleep(0.02)
    with pytest.raises(HelperFailed, match="died 3 times"):
        asked.result()
    # It was the killer's fault, not the question's: asked again it is answered.
    assert helper.submit_noise_multiplier(*HARD).result(timeout=240) > 0


def test_where_no_helper_can_be_started_whoever_waits_is_told(
    helper: PldProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process left on the machine; once there is one, questions are answered again."""
    asked = helper.submit_noise_multiplier(*HARD)

    def no_process(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", no_process)
        os.kill(helper._helper.pid, signal.SIGKILL)
        with pytest.raises(HelperFailed, match="can't be started"):
            asked.result(timeout=120)
        with pytest.raises(HelperFailed, match="can't be started"):
            helper.epsilon(2.203, RATE, 50, 1e-5)
    assert helper.epsilon(2.203, RATE, 50, 1e-5) > 0


def test_where_no_thread_can_be_started_no_helper_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    class Noted(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(HelperFailed, match="can't be started: can't start new thread"):
        PldProcess()
    (process,) = started
    assert process.returncode == -signal.SIGKILL  # ended, and reaped


def test_closing_ends_the_helper_and_what_waits() -> None:
    helper = PldProcess()
    pid = helper._helper.pid
    os.kill(pid, signal.SIGSTOP)  # it answers nothing before it is ended
    asked = helper.submit_epsilon(2.203, RATE, 60, 1e-5)
    helper.close()
    assert not is_running(pid)
    with pytest.raises(HelperFailed, match="closed"):
        asked.result(timeout=120)
    with pytest.raises(HelperFailed, match="closed"):
        helper.version()


@pytest.mark.parametrize("ending", ["exit", "SIGKILL"])
def test_the_helper_ends_with_its_parent(ending: str) -> None:
    """Also in the middle of a calibration of several seconds."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from dtjob_accounting.process import PldProcess\n"
            "helper = PldProcess()\n"
            "helper.version()\n"
            f"helper.submit_noise_multiplier(*{HARD})\n"
            "print(helper._helper.pid, flush=True)\n"
            "sys.stdin.read()\n",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    helper = int(parent.stdout.readline())
    assert is_running(helper)
    if ending == "SIGKILL":
        parent.kill()
    else:
        parent.stdin.close()
    parent.wait(timeout=120)
    wait_until(lambda: not is_running(helper) or is_zombie(helper))
    parent.stdout.close()
    parent.stdin.close()


def is_zombie(pid: int) -> bool:
    """An orphan is the init process's to reap, which some containers lack."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_callers_folder_can_not_shadow_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scipy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with PldProcess() as helper:
        assert helper.version() == pld.version()
