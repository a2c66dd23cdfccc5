"""Structured logs: one JSON object a line, with fields for where it comes from."""

from __future__ import annotations

import logging
import warnings
from typing import Any, TextIO

import structlog

from dtjob_trainer.process.streams import unfailing

Logger = structlog.typing.FilteringBoundLogger


def own_logger(stream: TextIO, **fields: Any) -> Logger:
    """Return a logger that writes JSON to `stream`, and goes on where that takes no more.

    structlog's own configuration stays as it is, and its context variables are not looked at:
    a task that logs with structlog must neither reach `stream` nor add to its lines (Rule 20).
    """
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(unfailing(stream)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        context_class=dict,
    ).bind(**fields)
    return logger


def quieten_libraries() -> None:
    """Silence warnings, and the standard library's loggers below ERROR; the rest goes to stderr.

    dtjob can't promise that what libraries log in passing is harmless.
    """
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR, format="%(message)s", force=True)


def mute_standard_loggers() -> None:
    """Cut the standard library's loggers off from every stream they hold now (Rule 20).

    A handler may write to a copy of a descriptor that `confine.drop_task_output` knows nothing
    of. One that task code adds later finds only the dropped descriptors.
    """
    for logger in [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers = [logging.NullHandler()]
    logging.lastResort = None
