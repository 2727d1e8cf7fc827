"""From tokens to stored events, for every call that takes them; counts what became of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from app import metrics
from app.api.schemas import EventBody, EventsAnswer, RejectedEvent
from app.api.services import Services
from app.errors import NotReady
from app.serving.click_rules import ClickRules
from app.serving.tokens import TokenInvalid, Tokens
from app.storage.errors import BufferFull, DatabaseUnavailable
from models.types import Event


def tokens_of(services: Services) -> Tokens:
    """The keys that open tokens. Raises `NotReady` before they are loaded."""
    tokens = services.state.tokens
    if tokens is None:
        raise NotReady("the token keys are not loaded yet: the database has not answered so far")
    return tokens


async def store(
    services: Services, given: Sequence[EventBody], now_ms: int, address: str | None = None
) -> EventsAnswer:
    """Store what the tokens prove; returns after the commit. `address`: of the browser, if known.

    Raises `NotReady`, `BufferFull`, `DatabaseUnavailable`.
    """
    indexes, events, rejected = _opened(given, tokens_of(services), now_ms)
    judged = [_judged(services.rules, event, address) for event in events]
    outcomes = await _written(services, judged, address)
    metrics.EVENTS_WAITING.set(services.events.waiting)
    late = [index for index, outcome in zip(indexes, outcomes, strict=True) if outcome == "too_old"]
    rejected += [RejectedEvent(index=index, reason="too_old") for index in late]
    _count(events, outcomes, rejected)
    return EventsAnswer(
        accepted=outcomes.count("accepted"),
        duplicate=outcomes.count("duplicate"),
        rejected=sorted(rejected, key=lambda item: item.index),
    )


def _opened(
    given: Sequence[EventBody], tokens: Tokens, now_ms: int
) -> tuple[list[int], list[Event], list[RejectedEvent]]:
    indexes: list[int] = []
    events: list[Event] = []
    rejected: list[RejectedEvent] = []
    for index, item in enumerate(given):
        if item.value_micros is not None and item.type != "conversion":
            rejected.append(RejectedEvent(index=index, reason="not_a_conversion"))
            continue
        try:
            content = tokens.open(item.token, now_ms, item.type)
        except TokenInvalid as error:
            rejected.append(RejectedEvent(index=index, reason=error.reason))
            continue
        indexes.append(index)
        events.append(content.event(item.type, item.value_micros))
    return indexes, events, rejected


async def _written(
    services: Services, judged: Sequence[Event], address: str | None
) -> Sequence[str]:
    """Write the events; those that could not be stored have not been seen by the rules."""
    try:
        return await services.events.write(judged)
    except (BufferFull, DatabaseUnavailable):
        for event in judged:
            services.rules.take_back(event, address, time.monotonic())
        raise


def _judged(rules: ClickRules, event: Event, address: str | None) -> Event:
    """The event, set aside where it breaks a rule; its sender is not told."""
    rule = rules.judge(event, address, time.monotonic())
    if rule is None:
        return event
    metrics.QUARANTINED.labels(rule).inc()
    return msgspec.structs.replace(event, quarantined_by=rule)


def _count(
    events: Sequence[Event], outcomes: Sequence[str], rejected: Sequence[RejectedEvent]
) -> None:
    """Count by type and outcome. One call of the metrics for each kind: they are files."""
    kinds = Counter(zip((event.type for event in events), outcomes, strict=True))
    for (kind, outcome), count in kinds.items():
        metrics.EVENTS.labels(kind, outcome).inc(count)
    refused = Counter(item.reason for item in rejected if item.reason != "too_old")
    for reason, count in refused.items():
        metrics.TOKENS_REFUSED.labels(reason).inc(count)
    if refused:
        metrics.EVENTS.labels("unknown", "rejected").inc(refused.total())
