"""`python -m dtjob_trainer.supervisor`: the first process of a worker.

Kept small: processes that come out of the forkserver execute the main module once more.
"""

from __future__ import annotations

if __name__ == "__main__":
    from dtjob_trainer.usercode import library_first

    library_first.apply()

    from dtjob_trainer.process import stop_at_start

    stop_at_start.exit_on_signal()  # before all that takes long to import

import argparse
import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.well_known import CONFIG_VARIABLE

if TYPE_CHECKING:
    from dtjob_api.wire.worker_config import WorkerConfig
    from dtjob_trainer.process.logs import Logger
    from dtjob_trainer.worker.supervision import Supervisor


def main(
    arguments: list[str] | None = None,
    make: Callable[[WorkerConfig, int, Logger], Supervisor] | None = None,
) -> WorkerExit:
    """Run one worker's supervisor.

    Parameters
    ----------
    arguments
        Command line without the program's name.
    make
        Makes the worker of a configuration and a position; tests watch or play its ranks.

    Returns
    -------
    WorkerExit
        What the process exits with.
    """
    from pydantic import ValidationError

    from dtjob_trainer.process import confine, logs, streams
    from dtjob_trainer.process.listening import ConfigurationError
    from dtjob_trainer.worker.processes import RANKS_CANNOT_START, CannotStart

    parser = argparse.ArgumentParser(prog="dtjob-worker", description=__doc__)
    parser.add_argument(
        "--config", type=Path, help=f"WorkerConfig file (default: ${CONFIG_VARIABLE})"
    )
    parser.add_argument(
        "--position", type=int, help="this worker's number (default: from the hostname)"
    )
    options = parser.parse_args(arguments)

    confine.end_with_parent(signal.SIGTERM)
    streams.take_standard_streams()
    logs.quieten_libraries()
    log = logs.own_logger(sys.stderr, component="supervisor")
    try:
        config = _read_config(options.config)
        position = options.position if options.position is not None else _position_of_host(config)
        log = log.bind(worker=position)
        os.environ.setdefault("PYTHONHASHSEED", _hash_seed(config.job.uid))
        worker = (make or _training_worker)(config, position, log)
        loop = asyncio.new_event_loop()
        for number in confine.STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` wants it
                loop.add_signal_handler(number, worker.terminate)
        code = loop.run_until_complete(worker.run())
    except (ConfigurationError, ValidationError, OSError) as error:
        log.error("can't start", reason="ConfigurationInvalid", detail=str(error))
        return WorkerExit.CONFIGURATION
    except CannotStart as error:
        # Not one of a job's reasons: the operator reports any such pod as `WorkerCrashing`.
        log.error("can't start ranks", reason=RANKS_CANNOT_START, detail=str(error))
        return WorkerExit.HELD
    except KeyboardInterrupt:
        return WorkerExit.OK
    return code


def _training_worker(config: WorkerConfig, position: int, log: Logger) -> Supervisor:
    from dtjob_trainer.rank import rank
    from dtjob_trainer.worker.forkserver import Forkserver
    from dtjob_trainer.worker.supervision import Supervisor

    return Supervisor(config, position, Forkserver(rank.main), log)


def _hash_seed(job_uid: str) -> str:
    """One for the job: a vocabulary that is made from a set is in one order in each attempt."""
    return str(int.from_bytes(hashlib.sha256(job_uid.encode()).digest()[:4], "big"))


def _read_config(path: Path | None) -> WorkerConfig:
    from dtjob_api.wire.worker_config import WorkerConfig

    text = path.read_text(encoding="utf-8") if path is not None else os.environ.get(CONFIG_VARIABLE)
    if text is None:
        from dtjob_trainer.process.listening import ConfigurationError

        raise ConfigurationError(f"no configuration: give --config FILE or set {CONFIG_VARIABLE}")
    return WorkerConfig.model_validate_json(text)


def _position_of_host(config: WorkerConfig) -> int:
    """A pod of a StatefulSet has the name of its host."""
    from dtjob_api.wire.positions import position_of

    child, host = config.proof.stateful_set, os.uname().nodename
    position = position_of(child, host) if child is not None else None
    if position is None:
        from dtjob_trainer.process.listening import ConfigurationError

        raise ConfigurationError(
            f"the host name {host!r} is that of no worker's pod of this job: give --position"
        )
    return position


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    # Not sys.exit: a thread may still wait for the forkserver's imports, and the kernel ends that
    # process with this one.
    os._exit(exit_code)
