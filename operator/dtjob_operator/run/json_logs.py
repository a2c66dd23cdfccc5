"""Logs as JSON lines on stderr, ours and the libraries' alike."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# kopf warns at each start that a thread takes no signals; main takes them.
_QUIET = {"kopf": logging.WARNING, "kopf._core.reactor.running": logging.ERROR}


class _PassingTrouble(logging.Filter):
    """Turns kopf's errors into warnings without tracebacks.

    kopf retries what failed, and is started again when it gives up: `event_stream` logs that.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("kopf") and record.levelno >= logging.ERROR:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None
        return True


def configure(level: str) -> None:
    """Send everything of that level and above to stderr.

    Parameters
    ----------
    level
        A name of the standard library's levels, such as INFO.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=())],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Without local variables: there are credentials among them.
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    handler.addFilter(_PassingTrouble())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, logging.getLevelName(level)))
