"""Replaying logs end to end: report, page and figures."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest

from jobs.replay.run import run
from models.errors import LogInvalid
from tests.acceptance.pages import check_stands_alone

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
KUAIRAND = Path(os.environ.get("KUAIRAND_DIR", ROOT.parent / "shared" / "data" / "kuairand"))


def _replayed(folder: Path, log: Path, features: Path, label: str, chunk: str) -> dict:
    report = folder / "made" / "report.json"
    assert run(log, features, label, chunk, report, folder / "page.html", seed=1) == 0
    read = json.loads(report.read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "schemas" / "replay.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(read)
    return read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the replay of the small log writes."""
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def report(folder: Path) -> dict:
    """The report of the small log, checked against its JSON schema."""
    return _replayed(folder, DATA / "log.csv", DATA / "features.toml", "clicked", "1h")


def test_every_event_is_counted_once(report: dict) -> None:
    """Events and clicks of the chunks add up to the log's."""
    assert report["total"]["events"] == 2_000
    assert sum(chunk["events"] for chunk in report["chunks"]) == 2_000
    clicks = sum(chunk["clicks"] for chunk in report["chunks"])
    assert clicks == report["total"]["clicks"]


def test_the_first_chunk_is_scored_before_anything_is_learned(report: dict) -> None:
    """The genesis model gives every ad the base rate: no order, and the running rate's loss."""
    first = report["chunks"][0]
    assert first["auc"] == 0.5
    assert first["log_loss"] == pytest.approx(first["log_loss_running_rate"], rel=1e-5)


def test_the_model_learns(report: dict) -> None:
    """On a log with true effects the model beats the running rate clearly."""
    rate = report["baselines"]["running_rate"]
    assert report["total"]["auc"] > 0.58
    assert report["total"]["log_loss"] < rate["log_loss"]


def test_what_serves_keeps_every_radius(report: dict) -> None:
    """No chunk's served snapshot holds a vector longer than its radius."""
    assert all(chunk["max_norm_ratio"] <= 1.00001 for chunk in report["chunks"])


def test_intervals_hold_their_figure(report: dict) -> None:
    """Each total lies inside its bootstrap interval."""
    for quality in (report["total"], *report["baselines"].values()):
        for name, (low, high) in quality["intervals"].items():
            assert low <= quality[name] <= high


def test_every_event_has_an_age(report: dict) -> None:
    """Events and clicks of the ages add up to the log's, and so do the predicted clicks."""
    for name in ("events", "clicks", "predicted_clicks"):
        parts = [group["model"][name] for group in report["by_age"]]
        assert sum(parts) == pytest.approx(report["total"][name])


def test_updating_helps(report: dict) -> None:
    """On a log with true effects a model that stopped learning early falls behind."""
    early, late = report["frozen"]
    assert early["log_loss_minus_updated_interval"][0] > 0
    assert early["model"]["events"] > late["model"]["events"]
    assert early["model"]["auc"] < early["updated"]["auc"]


def test_bids_are_grouped(tmp_path: Path) -> None:
    """With the column bid_micros there are ten groups, a chart of them, and a note on the rest."""
    header, *rows = (DATA / "log.csv").read_text(encoding="utf-8").splitlines()[:1_011]
    bids = ["" if i < 10 else str(1_000 * (i % 400 + 1)) for i in range(len(rows))]
    log = tmp_path / "log.csv"
    priced = [f"{row},{bid}" for row, bid in zip(rows, bids, strict=True)]
    log.write_text("\n".join([f"{header},bid_micros", *priced]), encoding="utf-8")
    groups = _replayed(tmp_path, log, DATA / "features.toml", "clicked", "6h")["by_bid"]
    assert [group["model"]["events"] for group in groups] == pytest.approx([100] * 10, abs=4)
    assert all(a["high_micros"] < b["low_micros"] for a, b in pairwise(groups))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "10 events without a bid are left out" in text
    assert text.count("<svg") == 10


def test_a_replay_can_be_repeated(report: dict, tmp_path: Path) -> None:
    """The same log, schema and seed give the same figures; only the seconds differ."""
    again = _replayed(tmp_path, DATA / "log.csv", DATA / "features.toml", "clicked", "1h")
    for name in ("auc", "log_loss", "calibration", "intervals", "max_raw_norm_ratio"):
        assert again["total"][name] == report["total"][name]


@pytest.mark.usefixtures("report")
def test_the_page_stands_alone(folder: Path) -> None:
    """Nine charts, light and dark, no script and nothing from elsewhere."""
    text = (folder / "page.html").read_text(encoding="utf-8")
    check_stands_alone(text, drawings=9)


def test_a_log_without_clicks_has_no_auc(tmp_path: Path) -> None:
    """Undefined figures are null in the report, gaps in the page, and nothing breaks."""
    header, *rows = (DATA / "log.csv").read_text(encoding="utf-8").splitlines()[:300]
    unclicked = [row for row in rows if row.split(",")[2] == "0"]
    log = tmp_path / "log.csv"
    log.write_text("\n".join([header, *unclicked]), encoding="utf-8")
    total = _replayed(tmp_path, log, DATA / "features.toml", "clicked", "1d")["total"]
    assert (total["auc"], total["calibration"], total["clicks"]) == (None, None, 0)
    assert total["calibration_holds"] is None


def test_a_wrong_chunk_length_writes_nothing(tmp_path: Path) -> None:
    """The mistake is named before any work is done."""
    report = tmp_path / "report.json"
    with pytest.raises(LogInvalid, match="chunk"):
        run(DATA / "log.csv", DATA / "features.toml", "clicked", "1w", report, None, 1)
    assert not report.exists()


@pytest.mark.skipif(not KUAIRAND.is_dir(), reason="the KuaiRand sample is not here: KUAIRAND_DIR")
@pytest.mark.parametrize("label", ["clicked", "liked"])
def test_real_impressions_are_predicted_better_than_by_vowpal_wabbit(
    label: str, tmp_path: Path
) -> None:
    """Hour by hour, one setting for both labels, against the best of nine settings for each."""
    log, features = KUAIRAND / "events.csv.gz", KUAIRAND / "features.toml"
    report = _replayed(tmp_path, log, features, label, "1h")
    best = json.loads((KUAIRAND / f"vw_{label}.json").read_text(encoding="utf-8"))
    total = report["total"]
    assert total["events"] == best["rows"]
    assert total["auc"] > best["best_auc"] + 0.01
    assert total["log_loss"] < best["best_log_loss"]
    assert total["verdicts"]["refused"] == 0
    assert total["calibration_holds"]
    assert all(frozen["log_loss_minus_updated_interval"][0] > 0 for frozen in report["frozen"])
