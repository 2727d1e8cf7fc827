"""The model's health: norms against their bounds, duals, progressive losses, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nicegui import ui
from starlette.requests import Request

from app.storage.snapshots import StoredSnapshot
from jobs.dashboard.charts import Chart, Line, Mark, over_time, ranges, strip
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.parts import Text, Tile, attribute, box, card, empty, grid, link, state
from jobs.dashboard.tables import Column, table
from jobs.dashboard.units import NONE, clock, count, decimal, figures, percent, short, when
from models.snapshot import Manifest, VectorHealth

_VERDICTS = {
    "accepted": ("good", "circle"),
    "repaired": ("warn", "triangle"),
    "refused": ("bad", "diamond"),
}
_REFUSED_SHOWN = 8
_NO_CLICK = (
    "No click is learned yet, and predicted clicks are held against seen ones. Impressions that"
    " were learned are under Progressive log loss."
)
_NONE_YET = (
    "Nothing has passed the gate yet. Impressions are learned once their attribution window is"
    " over; Retrains says what the last runs waited for."
)


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/model")
    def model(request: Request) -> None:
        told = "Whether the vectors are inside their bounds, and whether learning pays."
        with framed(desk, request.state.session, "/model", "Model health", told) as page:
            _tiles(page)
            with grid():
                _cards(page)


def _cards(page: Page) -> None:
    with card(
        "Norms against the bound",
        "Raw vectors of the newest candidate by feature type; 1 is the radius. What is longer is"
        " scaled back before it serves.",
        "half",
    ):
        page.follower.place(lambda: _vectors(page), _norms)
    with card(
        "Duals", "Multipliers of the norm constraints that are at work, by feature type.", "half"
    ):
        page.follower.place(lambda: _vectors(page), _duals)
        _largest_dual(page)
    with card(
        "Progressive log loss",
        "Each chunk is predicted before it is learned: by the candidate's line event by event, by"
        " the incumbent as a whole. Lower is better.",
        "half",
    ):
        _losses(page)
    with card(
        "Calibration",
        "Predicted by seen clicks in each chunk; 1 is right, small chunks scatter.",
        "half",
    ):
        _calibration(page)
    with card("Largest norm over its radius", "Before and after projection.", "half"):
        _largest(page)
    with card("Verdicts of the gate", "Each candidate, when it was judged.", "half"):
        _verdicts(page)
    with card("Refused lately", "What the gate did not let serve, and why."):
        page.follower.place(lambda: _refused(page)[:_REFUSED_SHOWN], partial(_listed, page))


def _trained(page: Page) -> list[Manifest]:
    """The manifests of all but the genesis, the oldest first."""
    found = [one.manifest for one in page.picture.snapshots if one.manifest.parent is not None]
    return found[::-1]


def _accepted(page: Page) -> list[Manifest]:
    return [one for one in _trained(page) if one.verdict.result != "refused"]


def _tiles(page: Page) -> None:
    with box("tiles"):
        names = ("Log loss", "Calibration", "Largest norm", "Largest dual", "Score range", "Gate")
        tiles = [Tile(name) for name in names]

    def refresh() -> None:
        trained = _trained(page)
        if trained:
            for tile, values in zip(tiles, _newest(trained), strict=True):
                tile.show(*values)

    page.follower.add(refresh)


def _newest(trained: Sequence[Manifest]) -> list[tuple[str, str, str, str]]:
    """Value, unit, note and colour of each tile."""
    last = next((one for one in reversed(trained) if one.verdict.result != "refused"), trained[-1])
    metrics = last.metrics
    loss, other = metrics.get("log_loss"), metrics.get("log_loss_incumbent")
    gain = "" if loss is None or other is None else f"incumbent {decimal(other, 4)}"
    raw = metrics.get("largest_raw_ratio")
    refused = sum(one.verdict.result == "refused" for one in trained)
    return [
        (decimal(loss, 4), "", gain, ""),
        (decimal(metrics.get("calibration")), "", "newest chunk", ""),
        (
            decimal(raw),
            "of radius",
            f"published {decimal(metrics.get('largest_ratio'))}",
            "warn" if raw is not None and raw > 1 else "",
        ),
        (figures(metrics.get("largest_dual")), "", "0: no constraint acts", ""),
        (_range(metrics), "", "certified, in logits", ""),
        (
            f"{len(trained) - refused}",
            f"of {len(trained)} passed",
            f"{refused} refused" if refused else "none refused",
            "bad" if trained[-1].verdict.result == "refused" else "",
        ),
    ]


def _range(metrics: dict[str, float | None]) -> str:
    low, high = metrics.get("score_low"), metrics.get("score_high")
    return NONE if low is None or high is None else f"{low:.1f} … {high:.1f}"


def _vectors(page: Page) -> tuple[VectorHealth, ...]:
    accepted = _accepted(page)
    return accepted[-1].vectors if accepted else ()


def _norms(vectors: Sequence[VectorHealth]) -> None:
    if not vectors:
        empty(_NONE_YET)
        return
    spans = [(one.ratios[0], one.ratios[2], one.ratios[3]) for one in vectors]
    chart = Chart("Norm over radius by feature type: median, 99 %, largest", "tall")
    above = sum(one.above for one in vectors)
    told = f"{above} of {sum(one.values for one in vectors)} vectors are longer than their radius"
    chart.show(ranges([one.feature for one in vectors], spans, (1.0, "bound")), told)
    _table_of(vectors)


def _table_of(vectors: Sequence[VectorHealth]) -> None:
    """The same figures to read: for those who do not see charts, or want the number."""
    with box(tag="details"):
        Text("As a table", "small soft", tag="summary")
        table(
            [
                Column("feature", lambda one: one.feature),
                Column("vectors", lambda one: count(one.values), is_number=True),
                Column("median", lambda one: decimal(one.ratios[0], 3), is_number=True),
                Column("99 %", lambda one: decimal(one.ratios[2], 3), is_number=True),
                Column("largest", lambda one: decimal(one.ratios[3], 3), is_number=True),
                Column("above 1", lambda one: count(one.above), is_number=True),
            ],
            vectors,
            "Norms by feature type",
        )


def _duals(vectors: Sequence[VectorHealth]) -> None:
    if not vectors:
        empty(_NONE_YET)
        return
    if not any(one.duals for one in vectors):
        empty("No dual is above 0 now: no constraint acts on the newest snapshot.")
        return
    table(
        [
            Column("feature", lambda one: one.feature),
            Column("vectors", lambda one: count(one.values), is_number=True),
            Column("with a dual", lambda one: count(one.duals), is_number=True),
            Column("share", lambda one: percent(one.duals / one.values, 1), is_number=True),
            Column("largest dual", lambda one: figures(one.largest_dual), is_number=True),
        ],
        vectors,
        "Duals by feature type",
    )


def _losses(page: Page) -> None:
    chart = Chart("Progressive log loss by chunk", none=_NONE_YET)

    def refresh() -> None:
        names = (
            ("running rate", "grey", "log_loss_rate", True),
            ("incumbent", "orange", "log_loss_incumbent", False),
            ("candidate", "blue", "log_loss", False),
        )
        lines = [_line(page, name, colour, key, dashed) for name, colour, key, dashed in names]
        chart.show(over_time(lines, low=None))

    page.follower.add(refresh)


def _calibration(page: Page) -> None:
    chart = Chart("Calibration by chunk", none=_NONE_YET)

    def refresh() -> None:
        chart.explain(_NO_CLICK if _accepted(page) else _NONE_YET)
        line = _line(page, "predicted / seen", "teal", "calibration")
        chart.show(over_time([line], bound=(1.0, "right")))

    page.follower.add(refresh)


def _largest(page: Page) -> None:
    chart = Chart("Largest norm over its radius by candidate", none=_NONE_YET)

    def refresh() -> None:
        lines = [
            _line(page, "raw", "orange", "largest_raw_ratio"),
            _line(page, "published", "blue", "largest_ratio"),
        ]
        chart.show(over_time(lines, bound=(1.0, "bound")))

    page.follower.add(refresh)


def _largest_dual(page: Page) -> None:
    chart = Chart("Largest dual by candidate", none="The largest one is drawn here.")

    def refresh() -> None:
        chart.show(over_time([_line(page, "largest dual", "violet", "largest_dual")]))

    page.follower.add(refresh)


def _line(page: Page, name: str, colour: str, key: str, is_dashed: bool = False) -> Line:
    found = _accepted(page)
    points = [(one.created_ms / 1000, one.metrics.get(key)) for one in found]
    return Line(name, colour, points, is_dashed=is_dashed, has_dots=len(points) < 40)


def _verdicts(page: Page) -> None:
    chart = Chart("Verdicts of the gate over time", none=_NONE_YET)

    def refresh() -> None:
        trained = _trained(page)
        marks = {
            name: (
                colour,
                shape,
                [
                    Mark(
                        one.created_ms / 1000,
                        name,
                        f"{short(one.id)} {name} {clock(one.created_ms)}",
                    )
                    for one in trained
                    if one.verdict.result == name
                ],
            )
            for name, (colour, shape) in _VERDICTS.items()
        }
        refused = len(marks["refused"][2])
        chart.show(strip(marks), f"{refused} of {len(trained)} refused")

    page.follower.add(refresh)


def _refused(page: Page) -> list[StoredSnapshot]:
    return [one for one in page.picture.snapshots if one.manifest.verdict.result == "refused"]


def _listed(page: Page, found: Sequence[StoredSnapshot]) -> None:
    if not found:
        empty(
            "Nothing was refused. To see a refusal, ask on Retrains for a run with a step size of"
            " 1,000,000: it costs no events."
        )
        return
    with attribute(box("feed", tag="ul"), aria_label="Refused snapshots, the newest first"):
        for stored in found:
            manifest = stored.manifest
            with box(tag="li"):
                Text(when(manifest.created_ms, page.picture.at_s), tag="time")
                with box():
                    with box("acts"):
                        link(f"snapshot {short(manifest.id)}", f"/snapshots/{manifest.id}", "mono")
                        state(manifest.verdict.result)
                    for reason in manifest.verdict.reasons:
                        Text(reason, "under")
