"""Structured logs: one JSON object a line, with the fields that say whose line it is."""

from __future__ import annotations

import logging
import warnings
from typing import Any, TextIO

import structlog

Logger = structlog.typing.FilteringBoundLogger


def configure(stream: TextIO, **fields: Any) -> Logger:
    """Send every log line of this process to ``stream`` as JSON; return the process's logger.

    Warnings and the standard library's loggers are silenced below ERROR: what libraries say in
    passing is not ours to promise harmless (Rule 20).
    """
    warnings.simplefilter("ignore")
    logging.basicConfig(stream=stream, level=logging.ERROR, format="%(message)s", force=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logger: Logger = structlog.get_logger().bind(**fields)
    return logger
