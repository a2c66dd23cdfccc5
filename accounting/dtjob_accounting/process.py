"""A warm helper process for `pld`, whose import takes seconds and whose answers take cores.

The helper is `python -m dtjob_accounting.process` and speaks JSON lines over its pipes. A
`multiprocessing` pool would import the caller's `__main__` again, and would outlive a caller
that is killed. This one starts importing at once in the background, ends when its input ends,
however its parent ended, and is started again when it dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import IO, Any

from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import Segment
from dtjob_accounting.report_figures import GROUP_SIZES, Figures, figures

_CACHED_RESULTS = 4096
_STARTS_PER_REQUEST = 3


class HelperFailed(RuntimeError):
    """The helper could not answer: it kept dying, or its libraries are not installed."""


class PldProcess:
    """Asks `pld` in another process; safe to use from many threads and from asyncio.

    `submit_*` return at once with a `concurrent.futures.Future`; asyncio code awaits
    `asyncio.wrap_future(...)` of it. The other methods wait. Equal questions are computed once.
    Implements `plan.Accountant`. A context manager; `close` ends the helper.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._results: OrderedDict[str, Future[Any]] = OrderedDict()
        self._waiting: dict[str, _Request] = {}
        self._closed = False
        with self._lock:
            self._helper = self._start()

    def submit_noise_multiplier(
        self, epsilon: float, delta: float, sample_rate: float, draws: int
    ) -> Future[float]:
        """Ask for `pld.noise_multiplier`."""
        return self._submit("noise_multiplier", epsilon, delta, sample_rate, draws)

    def submit_epsilon(
        self, noise_multiplier: float, sample_rate: float, draws: int, delta: float
    ) -> Future[float]:
        """Ask for `pld.epsilon`."""
        return self.submit_epsilon_of_segments([(noise_multiplier, sample_rate, draws)], delta)

    def submit_epsilon_of_segments(
        self, segments: Sequence[Segment], delta: float
    ) -> Future[float]:
        """Ask for `pld.epsilon_of_segments`."""
        return self._submit("epsilon_of_segments", [list(s) for s in segments], delta)

    def submit_figures(
        self,
        segments: Sequence[Segment],
        delta: float,
        group_sizes: Sequence[int] = GROUP_SIZES,
    ) -> Future[Figures]:
        """Ask for `report.figures`."""
        return self._submit("figures", [list(s) for s in segments], delta, list(group_sizes))

    def noise_multiplier(
        self, epsilon: float, delta: float, sample_rate: float, draws: int
    ) -> float:
        """Return `pld.noise_multiplier`; raises PlanError as it does, or HelperFailed."""
        return self.submit_noise_multiplier(epsilon, delta, sample_rate, draws).result()

    def epsilon(
        self, noise_multiplier: float, sample_rate: float, draws: int, delta: float
    ) -> float:
        """Return `pld.epsilon`; raises PlanError as it does, or HelperFailed."""
        return self.submit_epsilon(noise_multiplier, sample_rate, draws, delta).result()

    def version(self) -> str:
        """Return `pld.version`; raises HelperFailed where the library is missing."""
        version: str = self._submit("version").result()
        return version

    def close(self) -> None:
        """End the helper, at once, and fail what is still waiting."""
        with self._lock:
            self._closed = True
            helper = self._helper
            waiting, self._waiting = list(self._waiting.values()), {}
        helper.end()
        for request in waiting:
            request.future.set_exception(HelperFailed("closed before the answer came"))

    def __enter__(self) -> PldProcess:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, method: str, *arguments: Any) -> Future[Any]:
        key = json.dumps([method, *arguments])
        with self._lock:
            if self._closed:
                raise HelperFailed("the accounting helper is closed")
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
            if self._helper.ended:
                self._helper = self._start()
            request = _Request(key)
            self._results[key] = request.future
            self._waiting[key] = request
            self._forget_oldest()
            request.starts += 1
            self._helper.send(key)
        return request.future

    def _forget_oldest(self) -> None:
        while len(self._results) > _CACHED_RESULTS:
            oldest = next((k for k in self._results if k not in self._waiting), None)
            if oldest is None:
                return
            del self._results[oldest]

    def _start(self) -> _Helper:
        try:
            return _Helper(self._answered, self._died)
        except (OSError, RuntimeError) as error:  # no memory, no processes or threads left
            raise HelperFailed(f"the accounting helper can't be started: {error}") from error

    def _answered(self, line: str) -> None:
        answer = json.loads(line)
        with self._lock:
            request = self._waiting.pop(answer["key"], None)
        if request is None:
            return
        if "result" in answer:
            method = json.loads(request.key)[0]
            result = answer["result"]
            request.future.set_result(_figures(result) if method == "figures" else result)
        elif "refused" in answer:
            request.future.set_exception(PlanError(*answer["refused"]))
        else:
            self._fail(request, answer["failed"])

    def _died(self, helper: _Helper, status: int) -> None:
        """Start again with what is still waiting, unless that is what keeps killing the helper."""
        with self._lock:
            helper.ended = True
            if self._closed:
                return
            failed = [
                (
                    request,
                    f"the accounting helper died {request.starts} times (last status {status}); "
                    "-9 is most often a lack of memory",
                )
                for request in self._waiting.values()
                if request.starts >= _STARTS_PER_REQUEST
            ]
            for request, _ in failed:
                del self._waiting[request.key]
            if self._waiting:
                try:
                    self._helper = self._start()
                except HelperFailed as error:
                    failed += [(request, str(error)) for request in self._waiting.values()]
                    self._waiting = {}
                for request in self._waiting.values():
                    request.starts += 1
                    self._helper.send(request.key)
        for request, why in failed:
            self._fail(request, why)

    def _fail(self, request: _Request, message: str) -> None:
        with self._lock:
            self._results.pop(request.key, None)  # worth another try, unlike a refusal
        request.future.set_exception(HelperFailed(message))


class _Request:
    def __init__(self, key: str) -> None:
        self.key = key
        self.starts = 0
        self.future: Future[Any] = Future()
        # A future that runs can't be cancelled: it is shared by all who asked the same.
        self.future.set_running_or_notify_cancel()


class _Helper:
    """One life of the helper process, with a thread that reads its answers and reaps it."""

    def __init__(
        self, answered: Callable[[str], None], died: Callable[[_Helper, int], None]
    ) -> None:
        self._answered = answered
        self._died = died
        self.ended = False
        # -P: a module in the caller's folder must not shadow a library. A session of its own:
        # Ctrl-C in a terminal is for the caller, which closes the helper when it is done.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "dtjob_accounting.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._outbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        try:
            for target in (self._write, self._read):
                threading.Thread(target=target, name="dtjob-pld", daemon=True).start()
        except RuntimeError:
            with self._process:  # its pipes are closed too
                self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, line: str) -> None:
        self._outbox.put(line)

    def end(self) -> None:
        self._outbox.put(None)
        self._process.kill()
        self._process.wait()

    def _write(self) -> None:
        """Write what is sent; a helper that computes must not block who asks."""
        stdin = _pipe(self._process.stdin)
        with contextlib.suppress(OSError), stdin:  # it died: _read takes care
            while (line := self._outbox.get()) is not None:
                stdin.write(line + "\n")
                stdin.flush()

    def _read(self) -> None:
        with _pipe(self._process.stdout) as stdout:
            for line in stdout:
                self._answered(line)
        status = self._process.wait()
        self._outbox.put(None)
        self._died(self, status)


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _figures(raw: dict[str, Any]) -> Figures:
    """Return the figures that JSON has made a dict of, with strings for group sizes."""
    groups = {int(size): epsilon for size, epsilon in raw["group_epsilon"].items()}
    return Figures(**{**raw, "group_epsilon": groups})


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer each line of `requests` until they end, then end the process even mid-answer."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def receive() -> None:
        for line in requests:
            lines.put(line.rstrip("\n"))
        os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    try:
        from dtjob_accounting import pld
    except ImportError as error:
        missing = f"{error}; install dtjob[accounting]"
        while True:
            print(json.dumps({"key": lines.get(), "failed": missing}), file=answers, flush=True)

    def answer(method: str, arguments: list[Any]) -> Any:
        if method == "figures":
            segments, delta, group_sizes = arguments
            return dataclasses.asdict(figures(segments, delta, pld, group_sizes))
        return getattr(pld, method)(*arguments)

    while True:
        key = lines.get()
        method, *arguments = json.loads(key)
        reply: dict[str, Any] = {"key": key}
        try:
            reply["result"] = answer(method, arguments)
        except PlanError as error:
            reply["refused"] = [error.field, error.value, error.remedy]
        except Exception as error:
            reply["failed"] = f"{type(error).__name__}: {error}"
        with contextlib.suppress(BrokenPipeError):  # the parent is gone: receive ends us
            print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    # The caller ends it by its input: a signal to the whole group is for the caller to handle.
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(_number, signal.SIG_IGN)
    # Nothing but answers on the pipe, whatever a library may print.
    _answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(sys.stdin, _answers)
