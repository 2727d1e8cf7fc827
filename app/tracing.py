"""Traces by OpenTelemetry, of requests and of the stages of a retrain, for those who want them.

Without an endpoint nothing of OpenTelemetry is even imported: a span is then an empty context, and
requests go around the layer that would make theirs. With one, finished spans are sent by a thread
of their own, in batches, over OTLP/HTTP. How many are sampled, how large a batch is and further
headers are what OpenTelemetry's own variables say (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_…`,
`OTEL_EXPORTER_OTLP_HEADERS`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from app.settings import SettingInvalid

_STANDARD = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PATH = "/v1/traces"
_TIMEOUT_S = 2.0
_NOTHING: AbstractContextManager[None] = nullcontext()


class _Process:
    """What the process traces with; both None while it does not."""

    tracer: Any = None
    provider: Any = None


def start(service: str, endpoint: str | None, environment: Mapping[str, str] | None = None) -> None:
    """Trace from now on, if `endpoint` (`http://collector:4318`) or the standard variables say so.

    `service`: the name of this process. Raises `SettingInvalid` where OpenTelemetry is missing.
    """
    given = os.environ if environment is None else environment
    if _Process.tracer is not None or not (endpoint or any(given.get(name) for name in _STANDARD)):
        return
    try:
        _Process.provider = _provider(service, endpoint)
    except ImportError as error:
        raise SettingInvalid(
            "traces are asked for (ADSCENT_OTEL_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT), but"
            f" {error.name} is not installed. Install opentelemetry-sdk and"
            " opentelemetry-exporter-otlp-proto-http (the extra `otel`), or unset them"
        ) from error
    _Process.tracer = _Process.provider.get_tracer("adscent")


def stop() -> None:
    """Send what is left, and trace no more."""
    provider, _Process.tracer, _Process.provider = _Process.provider, None, None
    if provider is not None:
        provider.shutdown()


def tracer() -> Any:
    """What makes the spans of this process; None while it does not trace."""
    return _Process.tracer


def span(name: str, **attributes: str | int | float) -> AbstractContextManager[Any]:
    """A span of this name around a block; nothing where there are no traces."""
    if _Process.tracer is None:
        return _NOTHING
    named = {f"adscent.{key}": value for key, value in attributes.items()}
    found: AbstractContextManager[Any] = _Process.tracer.start_as_current_span(
        name, attributes=named
    )
    return found


def note(**attributes: str | int | float) -> None:
    """Add these to the span around the caller, if there is one."""
    if _Process.tracer is None:
        return
    from opentelemetry import trace

    for key, value in attributes.items():
        trace.get_current_span().set_attribute(f"adscent.{key}", value)


def _provider(service: str, endpoint: str | None) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    address = None if not endpoint else endpoint.rstrip("/").removesuffix(_PATH) + _PATH
    resource = Resource.create({"service.name": service, "service.namespace": "adscent"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    # Or a process that stops while the receiver is away would wait for it for ten seconds.
    timeout_s = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else _TIMEOUT_S
    exporter = OTLPSpanExporter(endpoint=address, timeout=timeout_s)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
