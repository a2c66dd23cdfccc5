"""`python -m dtjob_trainer.reader`: what is on a checkpoint volume, for `dtjob logs` and `result`.

It writes nothing and imports little, so that it answers at once in a pod of its own.
"""

from __future__ import annotations

if __name__ == "__main__":
    from dtjob_trainer.usercode import library_first

    library_first.apply()

    from dtjob_trainer.process import stop_at_start

    stop_at_start.exit_on_signal()

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path

from dtjob_trainer.retention import log_volume


def main(arguments: list[str] | None = None) -> int:
    """Wait to be asked, list the logs, or send a file of a volume to the standard output.

    Returns
    -------
    int
        The exit code: 0, or 1 where something can't be read, with the reason on the standard error.
    """
    parser = argparse.ArgumentParser(prog="dtjob-reader", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("wait", help="wait to be ended")
    commands.add_parser("list", help="list the logs as JSON").add_argument("volume", type=Path)
    send = commands.add_parser("send", help="send a file to the standard output")
    send.add_argument("volume", type=Path)
    send.add_argument("path", help="relative to the volume")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "wait":
                while True:
                    signal.pause()
            case "list":
                print(json.dumps(listed(options.volume)))  # noqa: T201
            case "send":
                with inside(options.volume, options.path).open("rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
                sys.stdout.buffer.flush()
    except OSError as error:
        sys.stderr.write(f"{error.filename or options.volume}: {error.strerror}\n")
        return 1
    return 0


def listed(volume: Path) -> list[dict[str, int]]:
    """Attempt, rank and bytes of each log on a volume, in order.

    Raises
    ------
    OSError
        It can't be looked at.
    """
    sizes = log_volume.sizes(volume)
    return [
        {"attempt": key.attempt, "rank": key.rank, "bytes": sizes[key]} for key in sorted(sizes)
    ]


def inside(volume: Path, path: str) -> Path:
    """A file of a volume.

    Raises
    ------
    FileNotFoundError
        It leads out of the volume.
    """
    found = (volume / path).resolve()
    if not found.is_relative_to(volume.resolve()):
        raise FileNotFoundError(2, "it leads out of the volume", path)
    return found


if __name__ == "__main__":
    sys.exit(main())
