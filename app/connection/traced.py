"""Spans of requests: the layer of the application that is there only where traces are asked for."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import request_ids, tracing


class Traced:
    """The layer that makes a span of every request, below that of its caller if it names one.

    A span is named by the route and says nothing of the path: browsers' links have tokens in them.
    """

    def __init__(self, app: ASGIApp) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app, self._kind = app, SpanKind.SERVER
        self._extract = TraceContextTextMapPropagator().extract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its span."""
        tracer = tracing.tracer()
        if scope["type"] != "http" or tracer is None:
            await self._app(scope, receive, send)
            return
        parent = self._extract(_carrier(scope))
        with tracer.start_as_current_span(scope["method"], parent, self._kind) as span:
            status = 500

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, noting)
            finally:
                _describe(span, scope, status)


def _describe(span: Any, scope: Scope, status: int) -> None:
    """Attributes by OpenTelemetry's semantic conventions of HTTP servers, and our own ids."""
    route = getattr(scope.get("route"), "path", "unmatched")
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("url.scheme", scope["scheme"])
    ids = request_ids.current()
    if ids is not None:
        span.set_attribute("adscent.request_id", ids.request_id)
        for name in ("decision_id", "snapshot_id"):
            if (value := getattr(ids, name)) is not None:
                span.set_attribute(f"adscent.{name}", str(value))
    if status >= 500:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _carrier(scope: Scope) -> dict[str, str]:
    wanted = (b"traceparent", b"tracestate")
    return {
        name.decode("ascii"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in wanted
    }
