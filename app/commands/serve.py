"""`adscent serve`: the parent of the workers. It binds, supervises, and serves the metrics."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import uvicorn
from uvicorn import _subprocess

from app import logs
from app.commands.supervisor import Supervisor
from app.database_url import database_url
from app.settings import Settings, listening
from app.storage import migrate
from models.features import load_schema

_GRACE_S = 10
_FIXED = ("host", "port", "metrics_host", "metrics_port", "workers")
"""What the parent itself was started with."""


def run(settings: Settings, renewed: Callable[[], Settings] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; every request under way is answered first.

    SIGHUP exchanges the workers one by one, with the code and the settings as they are then:
    `renewed` reads them again. Addresses and the number of workers stay as they were.

    Raises `SchemaInvalid`, `DatabaseMissing`, `DatabaseUnavailable`, `MigrationsPending` and
    `AddressUnavailable` before any worker starts.
    """
    logs.configure(settings.log_level)
    load_schema(settings.features)
    url = database_url(settings)
    asyncio.run(migrate.check(url))
    folder = Path(tempfile.mkdtemp(prefix="adscent-metrics-"))
    try:
        _publish(settings, url, folder)
        _serve_metrics(settings, folder)
        _share_imports()
        with _bound(settings) as bound:
            Supervisor(
                _configuration(settings, "from_environment"),
                _configuration(settings, "in_place_of_another"),
                [bound],
                lambda: _renewed(settings, renewed, folder),
            ).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _renewed(
    before: Settings, renewed: Callable[[], Settings] | None, folder: Path
) -> uvicorn.Config:
    """How workers start after the settings were read again. Raises what `run` raises."""
    found = before if renewed is None else renewed()
    kept = {name: getattr(before, name) for name in _FIXED}
    if any(getattr(found, name) != value for name, value in kept.items()):
        names = ", ".join(f"ADSCENT_{name.upper()}" for name in _FIXED)
        logging.getLogger(__name__).warning("only a new start changes %s", names)
    found = replace(found, **kept)
    load_schema(found.features)
    url = database_url(found)
    asyncio.run(migrate.check(url))
    _publish(found, url, folder)
    return _configuration(found, "after_another")


def _publish(settings: Settings, url: str, folder: Path) -> None:
    """Hand the settings to the workers, which are new processes, through the environment."""
    for item in fields(Settings):
        value, name = getattr(settings, item.name), f"ADSCENT_{item.name.upper()}"
        if value is not None and item.name != "database_url":
            os.environ[name] = str(value)
        else:
            os.environ.pop(name, None)
    os.environ["DATABASE_URL"] = url
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    os.environ["OMP_NUM_THREADS"] = "1"


def _serve_metrics(settings: Settings, folder: Path) -> None:
    # Imported late: prometheus_client looks for its folder in the environment when imported.
    from app import metrics_server

    host, port = settings.metrics_host, settings.metrics_port
    with listening(host, port, "ADSCENT_METRICS_"):
        metrics_server.serve(folder, host, port)


def _share_imports() -> None:
    """Fork the workers from a process that has imported what they need and done nothing else.

    Each would have 70 MB of its own for it, and again whenever one is replaced. FAISS must not have
    searched before a fork, nor may there be threads: the process that forks does neither.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["app.preloaded"])
    # uvicorn has no setting for how it starts workers: this is where it takes them from.
    _subprocess.spawn = context  # type: ignore[assignment]


def _bound(settings: Settings) -> socket.socket:
    """The socket that the workers share. uvicorn's own way to bind it exits without a remedy."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        with listening(settings.host, settings.port, "ADSCENT_"):
            bound.bind((settings.host, settings.port))
    except BaseException:
        bound.close()
        raise
    bound.set_inheritable(True)
    logging.getLogger(__name__).info("listening on %s port %d", *bound.getsockname()[:2])
    return bound


def _configuration(settings: Settings, start: str) -> uvicorn.Config:
    return uvicorn.Config(
        f"app.main:{start}",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="app.connection.draining:DrainingProtocol",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
