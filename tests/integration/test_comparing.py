"""Canaries and shadows measured on stored events: what is counted, judged, promoted, shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest
import structlog
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest

from app.ids import uuid7
from app.settings import Settings
from app.storage import comparisons, job_runs, partitions, serving_history, snapshots
from app.storage.catalog import Catalog
from app.storage.chunks import read_cursor
from app.storage.comparisons import Comparison, plan_of
from app.storage.engine import Database
from app.storage.events import EventWriter
from app.storage.snapshots import Training
from jobs import comparing, retrain
from jobs.context import Context, Measures
from models import snapshot
from models.comparison import sides
from models.errors import FeatureValueInvalid
from models.features import parse_schema
from models.types import Advertiser, Campaign, Event
from tests.integration.making import click_on, now_ms
from tests.integration.test_retrain import ADS, impressions, ingest
from tests.unit.conftest import SCHEMA

pytestmark = pytest.mark.anyio
RATE = 0.2


@pytest.fixture
async def context(database: Database, tmp_path: Path) -> Context:
    """A deployment that serves a snapshot which predicts the true click rate."""
    settings = Settings(
        home=tmp_path,
        attribution_window_s=0.0,
        canary_min_clicks=50,
        canary_log_loss_limit=0.02,
    )
    made = Context(
        settings=settings,
        database=database,
        schema=parse_schema(SCHEMA),
        store=settings.snapshot_store,
        clock=now_ms,
        log=structlog.get_logger("jobs"),
        measures=Measures(CollectorRegistry()),
    )
    catalog = Catalog(database)
    ads = [*ADS[:-1], replace(ADS[-1], bid_type="cpm")]
    await catalog.import_catalog([Advertiser(1)], [Campaign(1, 1)], ads, "test")
    await partitions.ensure_partitions(database, now_ms())
    await retrain.ensure_genesis(made)
    await trained(made, RATE)
    return made


async def trained(context: Context, rate: float) -> UUID:
    """Record a snapshot, as training from the head would, that predicts one rate for all."""
    serving = await snapshots.serving(context.database)
    assert serving is not None
    parent = snapshot.load(context.store / str(serving.head_id))
    made_ms = now_ms()
    manifest = structs.replace(
        parent.manifest,
        id=uuid7(made_ms),
        parent=serving.head_id,
        created_ms=made_ms,
        bias=float(np.log(rate / (1 - rate))),
    )
    sealed = snapshot.write(context.store, replace(parent, manifest=manifest))
    run = await job_runs.start_run(context.database, made_ms)
    cursor = await read_cursor(context.database)
    training = Training(run.id, "accepted", [sealed], cursor, cursor, 0)
    await snapshots.record(context.database, training, made_ms)
    return sealed.id


async def candidate(context: Context, rate: float) -> UUID:
    """A snapshot that is not served, of the head's line."""
    await snapshots.pin(context.database, "test")
    made = await trained(context, rate)
    await snapshots.unpin(context.database, "test")
    return made


async def answered(context: Context, snapshot_id: UUID, count: int, seed: int = 0) -> list[Event]:
    """Write impressions that this snapshot answered, every fifth of them clicked."""
    shown = [
        structs.replace(event, snapshot_id=snapshot_id, decided_ms=now_ms(), price_micros=3000)
        for event in impressions(context.schema, count, seed)
    ]
    clicks = [
        structs.replace(click_on(event), ad_id=event.ad_id) for event in shown[:: round(1 / RATE)]
    ]
    writer = EventWriter(context.database, 100_000)
    try:
        await writer.write([*shown, *clicks])
    finally:
        await writer.close()
    return shown


async def served(context: Context) -> UUID:
    """The incumbent."""
    found = await snapshots.serving(context.database)
    assert found is not None
    return found.snapshot_id


async def start(context: Context, kind: comparisons.Kind, snapshot_id: UUID) -> Comparison:
    """Begin a comparison; events of the present millisecond are in it."""
    share = 0.5 if kind == "canary" else None
    plan = plan_of(context.settings, share)
    return await comparisons.start(context.database, kind, snapshot_id, plan, "ann", "try it")


async def measured(context: Context, comparison: Comparison) -> Comparison:
    """The comparison after the jobs process has looked at it."""
    await asyncio.sleep(0.002)  # an impression of this millisecond is measured in the next
    await comparing.compare(context)
    return await comparisons.get_comparison(context.database, comparison.id)


async def test_an_equal_canary_is_promoted_and_the_head_goes_on(context: Context) -> None:
    """What was trained from it meanwhile stays the head; history and reasons tell why."""
    made = await candidate(context, RATE * 1.01)
    canary = await start(context, "canary", made)
    later = await trained(context, RATE)
    await answered(context, made, 300)
    await answered(context, await served(context), 900, 1)
    ended = await measured(context, canary)
    assert (ended.outcome, ended.ended_by) == ("promoted", comparing.ACTOR)
    assert "keep the limits" in (ended.end_reason or "")
    found = await snapshots.serving(context.database)
    assert found is not None
    assert (found.snapshot_id, found.head_id, found.is_pinned) == (made, later, False)
    [newest, *_] = await serving_history.between(context.database)
    assert (newest.action, newest.snapshot_id) == ("canary_promoted", made)
    assert newest.reason == ended.end_reason


async def test_a_promoted_canary_of_another_line_becomes_the_head(context: Context) -> None:
    """The next training starts from what is served."""
    made = await candidate(context, RATE)
    await snapshots.promote(context.database, await served(context), "ann", now_ms())
    canary = await start(context, "canary", made)
    await trained(context, RATE)
    await answered(context, made, 300)
    await answered(context, canary.incumbent_id, 900, 1)
    assert (await measured(context, canary)).outcome == "promoted"
    found = await snapshots.serving(context.database)
    assert found is not None
    assert (found.snapshot_id, found.head_id) == (made, made)


async def test_a_bad_canary_is_rolled_back_and_its_line_left(context: Context) -> None:
    """The head goes back to the incumbent: what was trained from the canary is not gone on from."""
    incumbent = await served(context)
    made = await candidate(context, 0.6)
    canary = await start(context, "canary", made)
    await trained(context, 0.6)
    await answered(context, made, 400)
    await answered(context, incumbent, 900, 1)
    ended = await measured(context, canary)
    assert ended.outcome == "rolled_back"
    assert "calibration is 3" in (ended.end_reason or "")
    found = await snapshots.serving(context.database)
    assert found is not None
    assert (found.snapshot_id, found.head_id) == (incumbent, incumbent)
    text = generate_latest(context.measures.comparisons.registry).decode()
    assert 'adscent_canaries_ended_total{outcome="rolled_back"} 1.0' in text


async def test_while_pinned_a_good_canary_is_not_promoted(context: Context) -> None:
    """It goes on; once unpinned it is. A bad one is rolled back all the same."""
    made = await candidate(context, RATE)
    await snapshots.pin(context.database, "ann")
    canary = await start(context, "canary", made)
    await answered(context, made, 300)
    await answered(context, canary.incumbent_id, 900, 1)
    waiting = await measured(context, canary)
    assert (waiting.outcome, waiting.judgement and waiting.judgement.result) == (None, "promote")
    assert await served(context) == canary.incumbent_id
    await snapshots.unpin(context.database, "ann")
    assert (await measured(context, canary)).outcome == "promoted"


async def test_figures_are_those_of_each_sides_own_answers(context: Context) -> None:
    """Impressions, clicks, spend, log loss and calibration, as computed by hand, in slices."""
    made = await candidate(context, 0.4)
    canary = await start(context, "canary", made)
    incumbent = canary.incumbent_id
    shown = [await answered(context, made, 20)]
    await measured(context, canary)
    shown.append(await answered(context, made, 30, 1))
    others = await answered(context, incumbent, 100, 2)
    await answered(context, uuid7(now_ms()), 10, 3)  # by a worker that has not followed yet
    ours, theirs = sides((await measured(context, canary)).sums)
    assert (ours.impressions, ours.clicks) == (50, 10)
    assert (theirs.impressions, theirs.clicks) == (100, 20)
    assert ours.calibration == pytest.approx(0.4 * 50 / 10, rel=1e-4)
    assert theirs.calibration == pytest.approx(1.0, rel=1e-4)
    by_hand = -(10 * np.log(0.4) + 40 * np.log(0.6)) / 50
    assert ours.log_loss == pytest.approx(by_hand, rel=1e-4)
    assert ours.spend_micros == sum(_spend(events) for events in shown)
    assert theirs.spend_micros == _spend(others)
    assert len(await comparisons.slices(context.database, canary.id)) == 2


def _spend(shown: list[Event]) -> int:
    """Per click, or per thousand impressions for the last ad, which bids so."""
    per_thousand = sum(event.ad_id == ADS[-1].id for event in shown)
    clicks = sum(event.ad_id != ADS[-1].id for event in shown[::5])
    return 3 * per_thousand + 3000 * clicks


async def test_a_shadow_is_scored_on_what_the_incumbents_answered(context: Context) -> None:
    """Both sides have the same impressions; a swap of the incumbent does not end it."""
    made = await candidate(context, 0.4)
    shadow = await start(context, "shadow", made)
    await answered(context, shadow.incumbent_id, 200)
    other = await trained(context, 0.3)
    assert await served(context) == other
    await answered(context, other, 200, 1)
    await answered(context, made, 50, 2)  # its own answers are no comparison
    found = await measured(context, shadow)
    ours, theirs = sides(found.sums, shadow=True)
    assert (ours.impressions, theirs.impressions, ours.clicks) == (400, 400, 80)
    assert ours.calibration == pytest.approx(2.0, rel=1e-4)
    assert theirs.calibration == pytest.approx((0.2 + 0.3) / 2 / 0.2, rel=1e-4)
    assert found.outcome is None
    assert found.judgement is not None
    assert found.judgement.result == "roll_back"


async def test_measuring_twice_counts_once(context: Context) -> None:
    """Two leaders for a moment, or a repeat: a slice is added to what it continues, or not."""
    made = await candidate(context, RATE)
    canary = await start(context, "canary", made)
    await answered(context, made, 40)
    await asyncio.sleep(0.002)
    await asyncio.gather(*(comparing.compare(context) for _ in range(3)))
    found = await comparisons.get_comparison(context.database, canary.id)
    assert found.sums.candidate.impressions == 40


async def test_only_matured_impressions_count(context: Context) -> None:
    """Within the attribution window a click may still come."""
    made = await candidate(context, RATE)
    canary = await start(context, "canary", made)
    await answered(context, made, 40)
    windowed = replace(context, settings=replace(context.settings, attribution_window_s=60.0))
    assert (await measured(windowed, canary)).sums.candidate.impressions == 0


async def test_a_canary_that_cannot_be_measured_ends_in_time(context: Context) -> None:
    """Impressions that do not fit the schema are an error of the job, and no reason to run on."""
    hasty = replace(context, settings=replace(context.settings, canary_longest_s=0.001))
    canary = await start(hasty, "canary", await candidate(hasty, RATE))
    writer = EventWriter(context.database, 1000)
    [shown] = impressions(context.schema, 1, 0)
    broken = structs.replace(shown, features=b"?", snapshot_id=canary.incumbent_id)
    await writer.write([structs.replace(broken, decided_ms=now_ms())])
    await writer.close()
    await asyncio.sleep(0.005)
    with pytest.raises(FeatureValueInvalid):
        await comparing.compare(hasty)
    ended = await comparisons.get_comparison(context.database, canary.id)
    assert ended.outcome == "rolled_back"
    assert "undecided" in (ended.end_reason or "")


async def test_a_retrain_begins_a_canary_where_the_settings_say_so(context: Context) -> None:
    """With the settings' share and rule; the incumbent serves on."""
    incumbent = await served(context)
    trial = replace(context, settings=replace(context.settings, canary_share=0.9))
    await ingest(trial, 60)
    await retrain.scheduled(trial)
    [run] = await job_runs.list_runs(context.database, 1)
    canary = await comparisons.running_canary(context.database)
    assert canary is not None
    assert (canary.snapshot_id, canary.incumbent_id) == (run.snapshot_id, incumbent)
    assert (canary.share, canary.rule.min_clicks) == (0.5, 50)
    assert await served(context) == incumbent


async def test_series_name_parts_and_stay_few(context: Context) -> None:
    """However many snapshots were served: one info line for each part, ids nowhere else."""
    ids = [await trained(context, RATE) for _ in range(6)]
    made = await candidate(context, RATE)
    canary, shadow = [await start(context, kind, made) for kind in ("canary", "shadow")]
    await answered(context, made, 40)
    await measured(context, canary)
    text = generate_latest(context.measures.comparisons.registry).decode()
    info = [line for line in text.splitlines() if line.startswith("adscent_snapshot_info{")]
    assert len(info) == 5
    assert f'adscent_snapshot_info{{role="incumbent",snapshot_id="{ids[-1]}"}} 1.0' in info
    assert f'adscent_snapshot_info{{role="previous",snapshot_id="{ids[-2]}"}} 1.0' in info
    named = [line for line in text.splitlines() if any(str(one) in line for one in [*ids, made])]
    assert sorted(named) == sorted(info)
    assert 'adscent_comparison_impressions{comparison="canary",role="canary"} 40.0' in text
    assert shadow.kind == "shadow"


async def test_a_judgement_can_be_read_back(context: Context) -> None:
    """Stored as JSON, it is the same again, infinite calibrations included."""
    made = await candidate(context, 0.5)
    canary = await start(context, "canary", made)
    unclicked = impressions(context.schema, 150, 5)
    writer = EventWriter(context.database, 1000)
    await writer.write([structs.replace(event, snapshot_id=made) for event in unclicked])
    await writer.close()
    await answered(context, canary.incumbent_id, 400)
    found = await measured(context, canary)
    assert found.outcome == "rolled_back"
    assert found.judgement is not None
    assert (
        msgspec.json.decode(msgspec.json.encode(found.judgement), type=type(found.judgement))
        == found.judgement
    )
