"""What has changed, in words: rows of the audit and promotions as one feed."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, islice

from app.storage.snapshots import Promotion
from jobs.dashboard.readings import Picture
from jobs.dashboard.units import amount, exact_bid, figures, short

VERBS = {
    "put": "set",
    "patch": "changed",
    "import": "imported",
    "create": "made",
    "revoke": "revoked",
    "promote": "promoted",
    "rollback": "rolled back to",
    "unpin": "unpinned",
    "pin": "pinned",
    "canary_start": "started a canary of",
    "canary_ended": "ended the canary of",
    "canary_promoted": "promoted the canary",
    "canary_rolled_back": "took back the canary",
    "canary_superseded": "replaced the canary",
    "shadow_start": "started a shadow of",
    "shadow_ended": "ended the shadow of",
    "shadow_superseded": "replaced the shadow",
    "release": "released",
    "retrain": "asked for",
    "rebase": "rebased",
}
_NOUNS = {
    "run": "a training run",
    "api_key": "API key",
    "token_key": "token key",
    "training_cursor": "the training cursor",
    "catalog": "the catalog",
}
_HIDDEN = ("version", "features_version", "id", "created_at")
_SERVED_BY = {
    "training": "passed the gate and is served",
    "genesis": "is served: the first snapshot",
    "canary": "passed its canary and is served",
}
_MOST = 160
_LARGE = 1e5
_FOLDED = {
    "passed": "snapshots passed the gate and were served, the last one",
    "refused": "snapshots were refused by the gate, the last one",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change: when, who, what, its details, and where to look; `kind` is its colour.

    `fold`: with which others that follow each other it becomes one.
    """

    at_ms: int
    who: str
    what: str
    detail: str
    target: str | None = None
    kind: str = ""
    fold: str = ""


def changes(picture: Picture, limit: int) -> list[Change]:
    """The newest changes of people and of training, the newest first.

    What training does again and again is one row until something else happens: it comes every few
    seconds, and would soon have pushed out what someone did.
    """
    merged = heapq.merge(
        _audited(picture), _trained(picture), key=lambda one: one.at_ms, reverse=True
    )
    return list(islice(_folded(merged), limit))


def _folded(found: Iterable[Change]) -> Iterator[Change]:
    for fold, group in groupby(found, key=lambda one: one.fold):
        alike = list(group)
        if not fold or len(alike) == 1:
            yield from alike
            continue
        newest = alike[0]
        what = f"{len(alike)} {_FOLDED[fold]} {short((newest.target or '').rpartition('/')[2])}"
        yield replace(newest, what=what)


def _audited(picture: Picture) -> Iterator[Change]:
    for row in picture.changes:
        kind, _, name = row.subject.partition(":")
        yield Change(
            row.at_ms,
            picture.who(row.actor),
            f"{VERBS.get(row.action, row.action)} {_thing(kind, name)}",
            _cut(difference(row.before, row.after)),
            _target(kind, name),
            "warn" if row.action in ("rollback", "revoke") else "",
        )


def _trained(picture: Picture) -> Iterator[Change]:
    """What training did by itself: what took over and what was refused."""
    found = [*_taken_over(picture.promotions), *_refused(picture)]
    yield from sorted(found, key=lambda one: one.at_ms, reverse=True)


def _taken_over(promotions: Iterable[Promotion]) -> Iterator[Change]:
    for one in promotions:
        if one.reason in _SERVED_BY:
            name = f"snapshot {short(one.snapshot_id)} {_SERVED_BY[one.reason]}"
            target = f"/snapshots/{one.snapshot_id}"
            yield Change(one.promoted_ms, "training", name, "", target, "good", "passed")


def _refused(picture: Picture) -> Iterator[Change]:
    for stored in picture.snapshots:
        manifest = stored.manifest
        if manifest.verdict.result == "refused":
            reasons = "; ".join(manifest.verdict.reasons)
            what = f"snapshot {short(manifest.id)} was refused by the gate"
            target = f"/snapshots/{manifest.id}"
            yield Change(
                manifest.created_ms, "training", what, _cut(reasons), target, "bad", "refused"
            )


def _thing(kind: str, name: str) -> str:
    noun = _NOUNS.get(kind, kind.replace("_", " "))
    if not name or kind == "run":
        return noun
    return f"{noun} {short(name) if len(name) == 36 else name}"


def _target(kind: str, name: str) -> str | None:
    if kind == "ad":
        return f"/ads/{name}"
    if kind == "snapshot":
        return f"/snapshots/{name}"
    return {"run": "/retrains", "quarantine": "/events"}.get(kind)


def difference(before: Mapping[str, object] | None, after: Mapping[str, object] | None) -> str:
    """What is not as it was: `bid 0.35 → 0.40, state active → paused`."""
    old, new = before or {}, after or {}
    told = []
    for key, value in new.items():
        if key in _HIDDEN or old.get(key) == value:
            continue
        if isinstance(value, dict) or key.startswith("flight_"):
            told += [f"{_name(key)} changed"] if old else []  # too long to read in a line
        elif key in old:
            told.append(f"{_name(key)} {_value(key, old[key], old)} → {_value(key, value, new)}")
        else:
            told.append(f"{_name(key)} {_value(key, value, new)}")
    return ", ".join(told)


def _name(key: str) -> str:
    return key.removesuffix("_micros").removesuffix("_id").removeprefix("is_").replace("_", " ")


def _value(key: str, value: object, row: Mapping[str, object]) -> str:
    if value is None:
        return "none"
    if key == "bid_micros" and isinstance(value, int):
        return exact_bid(value, str(row.get("bid_type", "cpc")))
    if key.endswith("_micros") and isinstance(value, int):
        return amount(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " and ".join(map(str, value))
    if isinstance(value, float):
        return figures(value) if abs(value) >= _LARGE else f"{value:,g}"
    text = str(value)
    return short(text) if key.endswith("_id") and len(text) == 36 else text


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
