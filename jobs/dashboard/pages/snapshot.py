"""One snapshot: its checks, its figures, and letting it serve."""

from __future__ import annotations

from uuid import UUID

from nicegui import ui
from starlette.requests import Request

from app.storage import snapshots
from app.storage.errors import StorageError
from app.storage.snapshots import Serving, StoredSnapshot
from jobs.dashboard.changing import promote, roll_back, start_canary, start_shadow
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.parts import Button, Text, box, card, empty, facts, grid, pill, state
from jobs.dashboard.tables import Column, table
from jobs.dashboard.units import NONE, count, decimal, figures, moment, short
from models.schema import GateSettings
from models.snapshot import Check, Manifest

_SHARE = 0.1
_MEANINGS = {
    "calibration": "predicted by seen clicks; the band is widened by what chance explains",
    "log_loss": "how much worse than the incumbent's; below 0 it is better",
    "published_norms": "longest vector that serves over its radius",
    "raw_norms": "longest vector before projection over its radius",
    "projection_loss": "log loss that projection costs",
    "drift": "how far scores have moved, in logits",
    "probe_scores": "largest score of the probes, in logits",
    "index": "largest difference between index and arrays",
}


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/snapshots/{snapshot_id}")
    async def snapshot(request: Request, snapshot_id: UUID) -> None:
        title = f"Snapshot {short(snapshot_id)}"
        session = request.state.session
        with framed(desk, session, "/snapshots", title, str(snapshot_id)) as page:
            try:
                stored = await snapshots.get_snapshot(desk.database, snapshot_id)
            except StorageError as error:
                empty(f"{error}. Snapshots lists those that there are.")
                return
            _all(page, stored)


def _all(page: Page, stored: StoredSnapshot) -> None:
    manifest = stored.manifest
    with card("Verdict"):
        page.follower.place(
            lambda: _part(page.picture.serving, manifest.id),
            lambda now: _acts(page, stored, *now),
        )
    with card("Checks of the gate", "What was measured, and the limit that it is held to."):
        _checks(manifest, page.desk.schema.gate)
    with grid():
        with card("Figures", kind="half"):
            facts(_figures(manifest))
        with card("Files", kind="half"):
            facts(_files(stored))


def _part(serving: Serving | None, snapshot_id: UUID) -> tuple[bool, bool]:
    """Whether it serves, and pinned: all of `serving` that its buttons depend on."""
    is_served = serving is not None and serving.snapshot_id == snapshot_id
    return is_served, is_served and serving is not None and serving.is_pinned


def _acts(page: Page, stored: StoredSnapshot, is_served: bool, is_pinned: bool) -> None:
    manifest = stored.manifest
    with box("acts"):
        state(manifest.verdict.result)
        if is_served:
            pill("serving", "blue")
            if is_pinned:
                pill("pinned", "warn")
        if stored.expired_ms is not None:
            pill("files gone")
        if is_served:
            Button("Roll back …", lambda: roll_back(page), "danger")
        elif manifest.verdict.result != "refused" and stored.expired_ms is None:
            Button("Serve …", lambda: promote(page, manifest.id, is_pinning=False), "strong")
            Button("Serve and pin …", lambda: promote(page, manifest.id, is_pinning=True))
            Button("Canary, 10 % …", lambda: start_canary(page, manifest.id, _SHARE))
            Button("Shadow …", lambda: start_shadow(page, manifest.id))
    if manifest.verdict.result == "refused":
        Text(
            "A refused snapshot never serves, by nobody's wish: its arrays were not even kept.",
            "small soft",
            tag="p",
        )


def _checks(manifest: Manifest, limits: GateSettings) -> None:
    table(
        [
            Column("check", lambda one: one.name.replace("_", " ")),
            Column("", _passed),
            Column("measured", lambda one: figures(one.value), is_number=True),
            Column("limit", lambda one: limit_of(one, limits), is_number=True),
            Column("", lambda one: one.reason or _meaning(one), phone="full"),
        ],
        manifest.verdict.checks,
        "Checks of the gate",
    )


def limit_of(check: Check, limits: GateSettings) -> str:
    """What a check is held to: calibration has two limits, of which the verdict names the nearer.

    Without the other when the settings have changed since.
    """
    band = (limits.calibration_low, limits.calibration_high)
    if check.name == "calibration" and check.limit in band:
        return " to ".join(map(figures, band))
    return figures(check.limit)


def _meaning(check: Check) -> str:
    if check.value is None:
        return ""
    if check.name == "promise":
        return f"all scores stay inside the promised range, by {figures(-check.value)} logits"
    return _MEANINGS.get(check.name, "")


def _passed(check: Check) -> None:
    pill("passed" if check.passed else "failed", "good" if check.passed else "bad")


def _figures(manifest: Manifest) -> list[tuple[str, str]]:
    metrics = manifest.metrics
    return [
        ("Events of the chunk", count(metrics.get("events"))),
        ("Clicks", count(metrics.get("clicks"))),
        ("Log loss", decimal(metrics.get("log_loss"), 5)),
        ("Log loss of the incumbent", decimal(metrics.get("log_loss_incumbent"), 5)),
        ("Log loss of the running rate", decimal(metrics.get("log_loss_rate"), 5)),
        ("Calibration", decimal(metrics.get("calibration"), 3)),
        ("Largest norm, raw", f"{decimal(metrics.get('largest_raw_ratio'), 3)} of its radius"),
        ("Largest norm, published", f"{decimal(metrics.get('largest_ratio'), 3)} of its radius"),
        ("Vectors scaled back", count(metrics.get("projected"))),
        ("Largest dual", figures(metrics.get("largest_dual"))),
        ("Weight of interactions", decimal(manifest.interaction_weight, 3)),
        ("Values dropped as unseen", _dropped(manifest)),
    ]


def _dropped(manifest: Manifest) -> str:
    names = ("collected_user_values", "collected_ad_values")
    found = [manifest.metrics.get(name) for name in names]
    return NONE if None in found else count(sum(one or 0.0 for one in found))


def _files(stored: StoredSnapshot) -> list[tuple[str, str]]:
    manifest = stored.manifest
    size = sum(file.bytes for file in manifest.files.values())
    return [
        ("Made", moment(manifest.created_ms)),
        ("First event", moment(manifest.first_event_ms)),
        ("Last event", moment(manifest.last_event_ms)),
        ("Trained from", NONE if manifest.parent is None else str(manifest.parent)),
        ("Feature schema", manifest.schema_hash),
        ("User values", count(manifest.metrics.get("user_values"))),
        ("Ad values", count(manifest.metrics.get("ad_values"))),
        ("Ads in the index", count(manifest.metrics.get("indexed_ads"))),
        ("Size", f"{size / 1_000_000:.1f} MB" if size else "no files were kept"),
        ("Files given up", moment(stored.expired_ms)),
    ]
