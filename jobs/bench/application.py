"""The server that is measured: the product's own application with two endpoints more.

The baselines decode the same body with the same type and answer bytes that the product answered,
in turn: what is left is the price of HTTP, of the framework and of JSON. They check no key.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import msgspec
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response

from app import settings
from app.api.schemas import DecisionRequest, ScoreRequest
from app.main import create_app, switch_often

ANSWERS = "BENCH_ANSWERS"
"""The environment variable that names the file of recorded answers."""

TYPES: dict[str, type] = {"/v1/score": ScoreRequest, "/v1/decisions": DecisionRequest}


def baseline_path(path: str) -> str:
    """The baseline of an endpoint."""
    return f"/bench{path}"


def create() -> FastAPI:
    """The application of the environment's settings, with the baselines."""
    switch_often()  # as a server's own workers do
    answers = Path(os.environ[ANSWERS])
    router = APIRouter()
    for path, kind in TYPES.items():
        _add(router, path, kind, answers)
    return create_app(settings.from_environment(), router.routes)


def _add(router: APIRouter, path: str, kind: type, answers: Path) -> None:
    decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(kind)
    recorded = _Recorded(answers, path)

    @router.post(baseline_path(path))
    async def answer(request: Request) -> Response:
        decoder.decode(await request.body())
        return Response(recorded.next(), media_type="application/json")


class _Recorded:
    """The answers of one endpoint, in turn; the file is there before the first request."""

    def __init__(self, file: Path, path: str) -> None:
        self._file, self._path = file, path
        self._answers: itertools.cycle[bytes] | None = None

    def next(self) -> bytes:
        if self._answers is None:
            found = msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[str]])
            self._answers = itertools.cycle(one.encode() for one in found[self._path])
        return next(self._answers)


if __name__ == "__main__":
    # One worker, set up as `adscent serve` sets up each of its own.
    from app import logs

    logs.configure("error")
    uvicorn.run(
        "jobs.bench.application:create",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="app.connection.arrival:TimedProtocol",
        log_config=None,
        access_log=False,
        server_header=False,
    )
