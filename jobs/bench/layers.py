"""The profile of one request, layer by layer: each is called in this process, again and again.

The whole application is called as a server would call it, without sockets; what a real request
takes beyond that is HTTP, the event loop and the kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import msgspec
from fastapi import FastAPI, Request

from app.api import body
from app.api.authentication import admit
from app.api.schemas import DecisionRequest, ScoreAnswer, ScoreRequest
from app.ids import uuid7
from app.main import create_app
from app.serving import pipeline, scoring
from app.serving.auction import expected_cpm
from app.serving.bundle import Bundle
from app.serving.page import Ask, best, contest, fill
from app.serving.tokens import Tokens
from app.serving.trial import Exploration
from jobs.bench.deployment import BenchmarkBroken, Deployment
from jobs.bench.report import Measure, measure
from models.offset import sigmoid

_READY_S = 30.0
_Step = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is called: the application, a key of it, and the requests' bodies."""

    app: FastAPI
    secret: str
    scores: list[bytes]
    decisions: list[bytes]

    def scope(self, path: str, content: bytes) -> dict[str, object]:
        """A request as the server hands it over."""
        headers = [
            (b"host", b"127.0.0.1"),
            (b"authorization", b"Bearer " + self.secret.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        return {
            **{"type": "http", "method": "POST", "path": path, "raw_path": path.encode()},
            **{"query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1"},
            **{"headers": headers, "app": self.app, "state": {}},
        }


async def profile(
    deployment: Deployment, secret: str, bodies: dict[str, list[str]], rounds: int
) -> dict[str, Measure]:
    """Processor time of each layer of `/v1/score`, and of the whole of both calls."""
    app = create_app(deployment.context.settings)
    async with app.router.lifespan_context(app):
        state = app.state.services.state
        async with asyncio.timeout(_READY_S):
            while state.bundle is None or state.tokens is None or not state.keys:  # noqa: ASYNC110  # the watcher fills them
                await asyncio.sleep(0.02)
        encoded = {path: [one.encode() for one in listed] for path, listed in bodies.items()}
        subject = _Subject(app, secret, encoded["/v1/score"], encoded["/v1/decisions"])
        found = {
            "layer_score_application": await _whole(subject, "/v1/score", rounds),
            "layer_decisions_application": await _whole(subject, "/v1/decisions", rounds),
        }
        steps = _score_steps(subject, state.bundle)
        steps |= _decision_steps(subject, state.bundle, state.tokens)
        for name, (about, step) in steps.items():
            found[f"layer_{name}"] = _timed(step, len(subject.scores), rounds, about)
        return found


_Steps = dict[str, tuple[str, _Step]]


def _score_steps(subject: _Subject, bundle: Bundle) -> _Steps:
    """What each layer of a score does for the n-th request, prepared so that it alone is called."""
    decode, encode = msgspec.json.Decoder(ScoreRequest).decode, msgspec.json.Encoder().encode
    live, now_ms = bundle.live, time.time_ns() // 1_000_000
    asked = [decode(one) for one in subject.scores]
    queries = [scoring.ScoreQuery(one.user, one.ad_ids) for one in asked]
    requests = [Request(subject.scope("/v1/score", one)) for one in subject.scores]
    rows = [live.rows_of(query.ad_ids) for query in queries]
    users = [bundle.users.of(query.user) for query in queries]
    hashes = [bundle.encoder.user_hashes(query.user) for query in queries]
    scores = [live.searchable.scores(*pair) for pair in zip(rows, users, strict=True)]
    rates = [sigmoid(one) for one in scores]
    columns = live.columns
    bids = [(columns.bid_micros[one], columns.per_click[one]) for one in rows]
    lines = [scoring.score(bundle, query, now_ms) for query in queries]
    answers = [ScoreAnswer(snapshot_id=bundle.snapshot_id, catalog_version=1, ads=a) for a in lines]
    return {
        "score_key": ("the API key: header, hash, look-up", lambda i: admit(requests[i], "score")),
        "score_decode": ("the body from JSON, checked", lambda i: decode(subject.scores[i])),
        "score_user_hashes": (
            "the user's values to hashes",
            lambda i: bundle.encoder.user_hashes(queries[i].user),
        ),
        "score_user_vector": (
            "the user's vector, the values' rows remembered",
            lambda i: bundle.users.of_hashes(*hashes[i]),
        ),
        "score_rows": ("ad ids to rows", lambda i: live.rows_of(queries[i].ad_ids)),
        "score_products": (
            "vectors gathered, inner products in float64",
            lambda i: live.searchable.scores(rows[i], users[i]),
        ),
        "score_sigmoid": ("scores to probabilities", lambda i: sigmoid(scores[i])),
        "score_ecpm": ("expected revenue", lambda i: expected_cpm(rates[i], *bids[i])),
        "score_eligible": (
            "which candidates may not serve this user, and why",
            lambda i: live.eligibility.reasons_of(queries[i].user, rows[i], now_ms),
        ),
        "score_all": (
            "everything from the decoded query to the answer's lines: the parts above and an"
            " object for each line",
            lambda i: scoring.score(bundle, queries[i], now_ms),
        ),
        "score_json": ("the answer to JSON", lambda i: encode(answers[i])),
        "score_response": ("the answer to JSON, in a response", lambda i: body.answer(answers[i])),
    }


def _decision_steps(subject: _Subject, bundle: Bundle, tokens: Tokens) -> _Steps:
    """The same of a decision."""
    live, now_ms = bundle.live, time.time_ns() // 1_000_000
    of_decision = msgspec.json.Decoder(DecisionRequest).decode
    pages = [of_decision(one) for one in subject.decisions]
    wanted = [pipeline.DecisionQuery(one.user, one.slots, one.placement) for one in pages]
    decided = [pipeline.decide(bundle, one, now_ms, uuid7(now_ms), tokens) for one in wanted]
    sealed = [ad.token for one in decided for ad in one.ads]
    contents = [tokens.read(sealed[at % len(sealed)]) for at in range(len(decided))]
    wide = [bundle.users.of(one.user) for one in pages]
    asks = [Ask(one.slots, one.placement) for one in pages]
    who = [contest(live, one.user, now_ms, ask) for one, ask in zip(pages, asks, strict=True)]
    always = Exploration(share=1.0, most=len(live), tried={})
    return {
        "decisions_mask": (
            "which ads of the catalog may serve this user, and the placement's floor",
            lambda i: contest(live, pages[i].user, now_ms, asks[i]),
        ),
        "decisions_retrieval": (
            "the best ads of those that may serve",
            lambda i: best(live, wide[i], asks[i], who[i]),
        ),
        "decisions_page": (
            "the best ads, the auction, a page without a trial",
            lambda i: fill(live, wide[i], asks[i], who[i], UUID(int=i)),
        ),
        "decisions_token": (
            "one ad's token",
            lambda i: tokens.seal(contents[i]),
        ),
        "decisions_trial": (
            "from the decoded query to the decision, its last slot given to a new ad",
            lambda i: pipeline.decide(bundle, wanted[i], now_ms, uuid7(now_ms), tokens, always),
        ),
        "decisions_all": (
            "from the decoded query to the decision, tokens included",
            lambda i: pipeline.decide(bundle, wanted[i], now_ms, uuid7(now_ms), tokens),
        ),
        "decisions_json": ("the decision to JSON", lambda i: msgspec.json.encode(decided[i])),
    }


def _timed(step: _Step, count: int, rounds: int, about: str) -> Measure:
    """Thread time of one call, in a round over all requests; the first round is warming."""
    taken = []
    for _ in range(rounds + 1):
        before = time.thread_time_ns()
        for at in range(count):
            step(at)
        taken.append((time.thread_time_ns() - before) / count / 1e6)
    return measure(taken[1:], "ms", f"one thread's time for each request: {about}")


async def _whole(subject: _Subject, path: str, rounds: int) -> Measure:
    """The same for the application, called as the server calls it."""
    contents = subject.scores if path == "/v1/score" else subject.decisions
    taken = []
    for _ in range(rounds + 1):
        before = time.thread_time_ns()
        for content in contents:
            await _call(subject, path, content)
        taken.append((time.thread_time_ns() - before) / len(contents) / 1e6)
    about = f"POST {path} through the whole application, without sockets and HTTP"
    return measure(taken[1:], "ms", f"one thread's time for each request: {about}")


async def _call(subject: _Subject, path: str, content: bytes) -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message.get("status", 200) != 200:
            raise BenchmarkBroken(f"{path} answered {message['status']}")

    application: Callable[..., Awaitable[None]] = subject.app
    await application(subject.scope(path, content), receive, send)
