"""Structured logs: one JSON object a line on standard error, with no secret in it."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any

import structlog

from app import request_ids

_SECRET = ("authorization", "cookie", "secret", "token", "password", "api_key", "database_url")
_REMOVED = "[removed]"
_SHAPES = (
    # An API key.
    (re.compile(r"adscent_[A-Za-z0-9_-]{40,}"), _REMOVED),
    # The password of an URL. It may hold an unescaped @, so all up to the last one goes.
    (re.compile(r"(\w://[^\s:/@\"\\]*:)[^\s\"]*@"), rf"\1{_REMOVED}@"),
    # A decision's token: its version (1 or 2), then a key id, in URL-safe base64.
    (re.compile(r"A[Q-Za-v][A-Za-z0-9_-]{60,}"), _REMOVED),
)
"""What a secret looks like wherever it stands: in a message, a traceback, an address."""
_SELDOM_S = 10.0


def configure(level: str) -> None:
    """Send structlog and the standard library's loggers through one JSON renderer.

    `level` is one of debug, info, warning, error.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        request_ids.add_to,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(shared))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").filters = [_Seldom()]
    # A line for each request and each tick costs more than it tells: metrics count them. The
    # scheduler warns whenever a tick is skipped because the last one still works, as it should.
    for name in ("uvicorn.access", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def _formatter(shared: list[structlog.types.Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _rendered,
        ],
    )


def _without_secrets(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _cleaned(key, value)
    return event


def _cleaned(key: object, value: Any) -> Any:
    """The value without what a name says to be secret, however deep."""
    if any(word in str(key).lower() for word in _SECRET):
        return _REMOVED
    if isinstance(value, dict):
        return {inner: _cleaned(inner, one) for inner, one in value.items()}
    return value


_as_json = structlog.processors.JSONRenderer(default=str)


def _rendered(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
    """The line. No secret leaves in a text that nobody thought of."""
    line = str(_as_json(logger, name, event))
    for shape, instead in _SHAPES:
        line = shape.sub(instead, line)
    return line


class _Seldom(logging.Filter):
    """Lets a message that any stranger can cause through once in ten seconds, with their number."""

    _CAUSED = ("Invalid HTTP request received.", "Unsupported upgrade request.")

    def __init__(self) -> None:
        super().__init__()
        self._count, self._told_s = 0, float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log this record."""
        if record.msg not in self._CAUSED:
            return True
        self._count += 1
        if time.monotonic() < self._told_s + _SELDOM_S:
            return False
        record.msg = f"{record.msg} {self._count} since the last such line."
        self._count, self._told_s = 0, time.monotonic()
        return True
