"""Storms of tokens: replayed, forged, altered, too old."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx
import msgspec

from app.serving.tokens import TokenContent, Tokens
from app.storage import keys
from app.storage.engine import Database
from tests.faults.accounts import count
from tests.faults.deployment import Deployment
from tests.faults.report import Seen

_DECISIONS = 100
_SENDERS = 6
_REQUESTS = 40
_AT_ONCE = 200
_DAY_MS = 86_400_000
_STORED = "SELECT count(*) FROM events WHERE placement = 'storm'"


def test_token_storm(deployment: Deployment, seen: Seen) -> None:
    """48,000 events of 300 genuine tokens and as many false ones: each genuine is stored once."""
    with deployment.visited():
        genuine = _genuine(deployment)
        time.sleep(1)
        since = time.monotonic()
        false = deployment.background.run(_false(deployment, genuine))
        told, reasons = deployment.background.run(_storm(deployment, genuine, false))
        seconds = time.monotonic() - since
        time.sleep(1)
    stored = deployment.look.value(_STORED)
    deployment.bulk_events += stored
    sent = _SENDERS * _REQUESTS * _AT_ONCE
    seen.note(
        events_sent=sent,
        tokens=len(genuine),
        stored=stored,
        refused=dict(reasons),
        duplicates=told["duplicate"],
        events_per_s=round(sent / seconds),
    )
    seen.recovered(events=deployment.ledger.stored_again_s(since))
    seen.serving(deployment.ledger, since)
    assert told["accepted"] == stored == len(genuine)
    assert told["accepted"] + told["duplicate"] + reasons.total() == sent
    assert reasons.keys() == {"forged", "malformed", "unknown_key", "expired"}
    assert not deployment.ledger.failed_since(since)
    seen.accounts(count(deployment))


def test_click_storm(deployment: Deployment, seen: Seen) -> None:
    """One click is replayed 2,000 times: stored once, and set aside by the rule."""
    with deployment.visited():
        token = _genuine(deployment)[0]
        since = time.monotonic()
        event = {"type": "click", "token": token}
        answers = [
            deployment.call("POST", "/v1/events", json={"events": [event] * 200}).json()
            for _ in range(10)
        ]
    deployment.bulk_events += 1
    rows = deployment.look.fetch(
        "SELECT quarantined_by FROM events WHERE placement = 'storm' AND type = 'click'"
    )
    seen.note(events_sent=2000, stored=len(rows))
    seen.serving(deployment.ledger, since)
    assert sum(answer["accepted"] for answer in answers) == 1
    assert sum(answer["duplicate"] for answer in answers) == 1999
    assert [row["quarantined_by"] for row in rows] == ["token"]
    seen.accounts(count(deployment))


def _genuine(deployment: Deployment) -> list[str]:
    """Tokens of decisions of a placement of their own."""
    asked = {"user": {}, "slots": 3, "placement": "storm", "per_advertiser": 3}
    answers = [deployment.call("POST", "/v1/decisions", json=asked) for _ in range(_DECISIONS)]
    return [ad["token"] for answer in answers for ad in answer.json()["ads"]]


async def _false(deployment: Deployment, genuine: list[str]) -> list[str]:
    """As many tokens that prove nothing, of each kind in turn."""
    database = Database(deployment.look.url, pool=1)
    known, current = await keys.token_keys(database)
    await database.close()
    real = Tokens(known, current, _DAY_MS)
    other = Tokens({current: os.urandom(32)}, current, _DAY_MS)
    absent = Tokens({current + 100: os.urandom(32)}, current + 100, _DAY_MS)
    now_ms = time.time_ns() // 1_000_000
    found = []
    for number, token in enumerate(genuine):
        content = real.read(token)
        middle = len(token) // 2
        flipped = "A" if token[middle] != "A" else "B"
        found.append(
            (
                token[:middle] + flipped + token[middle + 1 :],
                other.seal(_invented(content, now_ms)),
                absent.seal(_invented(content, now_ms)),
                real.seal(_invented(content, now_ms - 3 * _DAY_MS)),
                token[: 10 + number % 20],
            )[number % 5]
        )
    return found


def _invented(content: TokenContent, decided_ms: int) -> TokenContent:
    return msgspec.structs.replace(content, decision_id=uuid4(), decided_ms=decided_ms)


async def _storm(
    deployment: Deployment, genuine: list[str], false: list[str]
) -> tuple[Counter[str], Counter[str]]:
    """Send them all over and over, over several connections; what was answered."""
    told: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    async def send(seed: int) -> None:
        draw = random.Random(seed)  # noqa: S311  # no secret hangs on it
        url = f"http://127.0.0.1:{deployment.port}"
        headers = {"authorization": f"Bearer {deployment.secret}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            for _ in range(_REQUESTS):
                chosen = draw.choices(genuine, k=_AT_ONCE // 2) + draw.choices(
                    false, k=_AT_ONCE // 2
                )
                events = [{"type": "impression", "token": token} for token in chosen]
                answer: Any = (await client.post("/v1/events", json={"events": events})).json()
                told.update(accepted=answer["accepted"], duplicate=answer["duplicate"])
                reasons.update(item["reason"] for item in answer["rejected"])

    await asyncio.gather(*(send(seed) for seed in range(_SENDERS)))
    return told, reasons
