"""Spans arrive at a real OTLP/HTTP receiver; where nobody asks for them nothing is loaded."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app import tracing
from app.settings import SettingInvalid, Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from jobs import retrain
from jobs.context import Context
from tests.contract.conftest import (
    Api,
    catalog,
    promote_genesis,
    running,
    secrets_of,
    settings,
)
from tests.integration.test_retrain import context, ingest

pytestmark = pytest.mark.anyio
__all__ = ["catalog", "context", "settings"]

_TOP = Path(__file__).resolve().parents[2]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Receiver(ThreadingHTTPServer):
    """Takes what an OTLP/HTTP exporter posts; `spans` has all spans, with their service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Any]] = []

    @property
    def url(self) -> str:
        """The endpoint to configure."""
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> Any:
        """The one span of this name."""
        [found] = [span for _, span in self.spans if span.name == name]
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:  # the base class names it
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [(names["service.name"], span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver; tracing ends with the test."""
    with Receiver() as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        tracing.stop()
        found.shutdown()
        thread.join()


def _attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def _api(stack: AsyncExitStack, settings: Settings, catalog: Catalog) -> Api:
    database = await stack.enter_async_context(_opened(str(settings.database_url)))
    secrets = await secrets_of(database)
    await promote_genesis(database, settings, catalog)
    app = await stack.enter_async_context(running(settings))
    api = Api(app, database, settings, secrets, stack)
    await api.ready()
    return api


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()


async def test_request_is_a_span_below_its_caller(
    receiver: Receiver, settings: Settings, catalog: Catalog
) -> None:
    """Named by the route, with status, request, decision and snapshot; no token in it."""
    tracing.start("adscent-serve", receiver.url, {})
    async with AsyncExitStack() as stack:
        api = await _api(stack, settings, catalog)
        headers = {"traceparent": PARENT, "X-Request-Id": "shop-1"}
        body = {"user": {}, "slots": 1}
        decided = await api.client("score").post("/v1/decisions", json=body, headers=headers)
        token = decided.json()["ads"][0]["token"]
        await api.client().get(f"/v1/e/i/{token}")
        await api.client().get("/v1/nothing")
    span = receiver.named("POST /v1/decisions")
    assert span.trace_id.hex() == PARENT.split("-")[1]
    assert span.parent_span_id.hex() == PARENT.split("-")[2]
    said = _attributes(span)
    assert (said["http.response.status_code"], said["http.route"]) == (200, "/v1/decisions")
    assert said["adscent.request_id"] == "shop-1"
    assert said["adscent.decision_id"] == decided.json()["decision_id"]
    assert said["adscent.snapshot_id"] == decided.json()["snapshot_id"]
    assert _attributes(receiver.named("GET unmatched"))["http.response.status_code"] == 404
    assert receiver.named("GET /v1/e/i/{token}")
    assert {service for service, _ in receiver.spans} == {"adscent-serve"}
    assert token not in str(receiver.spans)


async def test_stages_of_a_retrain_are_spans_of_one_trace(
    receiver: Receiver, context: Context
) -> None:
    """Each stage has its own time below the run's, which names run, events and snapshot."""
    await ingest(context, 200)
    tracing.start("adscent-jobs", receiver.url + "/v1/traces", {})
    await retrain.scheduled(context)
    tracing.stop()
    run = receiver.named("retrain")
    stages = [span for _, span in receiver.spans if span.name.startswith("retrain.")]
    assert {span.name.partition(".")[2] for span in stages} == {
        *("read_chunk", "catalog", "load", "unpack", "learn", "write", "record")
    }
    assert {span.trace_id for span in stages} == {run.trace_id}
    assert {span.parent_span_id for span in stages} == {run.span_id}
    said = _attributes(run)
    assert said["adscent.events"] > 0
    assert said["adscent.state"] == "accepted"
    assert {"adscent.run_id", "adscent.snapshot_id"} <= set(said)


async def test_standard_variable_is_enough(receiver: Receiver, monkeypatch: Any) -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT alone turns traces on, as for any other program."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    tracing.start("adscent-jobs", None)
    with tracing.span("retrain", events=3):
        tracing.note(state="accepted")
    tracing.stop()
    said = _attributes(receiver.named("retrain"))
    assert (said["adscent.events"], said["adscent.state"]) == (3, "accepted")


async def test_receiver_that_is_away_fails_no_request(settings: Settings, catalog: Catalog) -> None:
    """Requests are answered whether anybody takes their spans or not."""
    tracing.start("adscent-serve", "http://127.0.0.1:9", {})
    async with AsyncExitStack() as stack:
        api = await _api(stack, settings, catalog)
        assert (await api.call("admin", "GET", "/v1/ads")).status_code == 200
    tracing.stop()


def test_nothing_is_loaded_where_nobody_asks() -> None:
    """Without an endpoint neither SDK nor exporter is imported; a span is an empty context."""
    program = (
        "import sys; from app import tracing, main; import jobs.retrain;"
        "tracing.start('x', None, {});"
        "assert tracing.span('a') is tracing.span('b', events=1); tracing.note(events=2);"
        "loaded = {'.'.join(one.split('.')[:2]) for one in sys.modules};"
        "assert not loaded & {'opentelemetry.sdk', 'opentelemetry.exporter'}"
    )
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_TOP)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)  # noqa: S603


def test_missing_packages_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for traces without the extra is told what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingInvalid, match="opentelemetry-sdk"):
        tracing.start("adscent-serve", "http://127.0.0.1:9", {})
    assert tracing.tracer() is None
