"""Does what a page says, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.checkout import ROOT
from tests.support.pages import consoles
from tests.support.pages.consoles import Command
from tests.support.pages.fenced import Block

COMMAND_SECONDS = 900.0
_LINKED = ("examples", "deploy", "crds", "Dockerfile.operator", "Dockerfile.trainer")


class TooLateError(AssertionError):
    """A command ended by itself before Ctrl-C reached it: the machine stood still meanwhile."""


class Session:
    """The folder in which a page's blocks take effect, one after the other.

    Parameters
    ----------
    folder
        Empty; it looks like the checkout to what the page does.
    bin_folder
        A folder of programs that come before those of the environment.
    replaced
        Changes what stands in a page, such as the name of an image, to what it is here.
    """

    def __init__(
        self,
        folder: Path,
        bin_folder: Path | None = None,
        replaced: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.folder = folder
        self._replaced = replaced
        programs = [str(bin_folder)] if bin_folder else []
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _OUR_OWN},
            "PATH": os.pathsep.join(
                [*programs, str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
        }
        for name in _LINKED:
            (folder / name).symlink_to(ROOT / name)

    def do(self, blocks: Sequence[Block], kinds: set[str]) -> None:
        """Write the files, and run the blocks of these kinds, in the order of the page."""
        for block in blocks:
            if block.kind == "file":
                path = self.folder / block.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self._replaced(block.text))
            elif block.kind in kinds and block.language == "console":
                self._console(block)
            elif block.kind in kinds and block.language == "python":
                with _at_home(self.folder):
                    exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})

    def _console(self, block: Block) -> None:
        code = 0
        commands = consoles.commands(self._replaced(block.text))
        for command, following in zip(commands, [*commands[1:], None], strict=True):
            lines, code = self._run(command, code)
            transcript = f"{block.place}: $ {command.text}\n{''.join(lines)}(exit code {code})"
            if command.before_interrupt is not None and code == 0:
                raise TooLateError(transcript)
            assert consoles.agrees(command.expected, lines, loose=block.kind != "fast"), transcript
            assert code == 0 or (following and following.text == "echo $?"), transcript

    def _run(self, command: Command, code: int) -> tuple[list[str], int]:
        lines: list[str] = []
        with subprocess.Popen(
            ["bash", "-c", f"(exit {code})\n{command.text}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            reader = threading.Thread(target=lines.extend, args=(process.stdout,))
            reader.start()
            try:
                self._interrupt(command, process, lines)
                process.wait(COMMAND_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                raise
            finally:
                reader.join(COMMAND_SECONDS)
        return lines, process.returncode

    def _interrupt(
        self, command: Command, process: subprocess.Popen[str], lines: Sequence[str]
    ) -> None:
        """Press Ctrl-C once the command has printed what it is shown to have printed by then."""
        before = command.before_interrupt
        deadline = time.monotonic() + COMMAND_SECONDS
        while before is not None and process.poll() is None:
            if consoles.matched(before, list(lines), loose=True):
                os.killpg(process.pid, signal.SIGINT)
                return
            assert time.monotonic() < deadline, "".join(lines)
            time.sleep(0.02)


_OUR_OWN = frozenset({"COLUMNS", "DTJOB_DATA_DIR", "PYTHONPATH", "KUBECONFIG"})


@contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    """The folder as working directory and first place of imports, all undone at the end."""
    before, path, modules = os.getcwd(), list(sys.path), set(sys.modules)
    environment = dict(os.environ)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        for name in set(sys.modules) - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
