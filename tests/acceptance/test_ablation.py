"""The ablation lab: on seeded markets and on a log, every variant against the default."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from jobs.lab import late_clicks
from jobs.lab.ablation import VARIANTS, run

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"


def checked(path: Path) -> dict:
    """The report, checked against its JSON schema."""
    read = json.loads(path.read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "schemas" / "ablation.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(read)
    return read


def test_markets_are_independent_seeds(tmp_path: Path) -> None:
    """Every variant has its row; the default's difference to itself is nothing."""
    assert run(None, None, "clicked", "1h", 2, 3000, tmp_path / "r.json") == 0
    read = checked(tmp_path / "r.json")
    rows = {row["variant"]: row for row in read["rows"]}
    assert list(rows) == list(VARIANTS)
    assert rows["default"]["difference"] == 0
    assert rows["default"]["interval"] == [0, 0]
    assert rows["AdaGrad"]["log_loss"] - rows["default"]["log_loss"] == pytest.approx(
        rows["AdaGrad"]["difference"], abs=1e-12
    )


def test_one_market_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One difference does not tell how they vary: null in the report, a word on the screen."""
    assert run(None, None, "clicked", "1h", 1, 1000, tmp_path / "r.json") == 0
    assert all(row["interval"] is None for row in checked(tmp_path / "r.json")["rows"])
    assert "intervals take two seeds" in capsys.readouterr().out


def test_a_log_is_the_same_for_every_seed(tmp_path: Path) -> None:
    """On a log the seeds differ only in first vectors: main effects do not see them."""
    report, features = tmp_path / "r.json", DATA / "features.toml"
    for seeds in (1, 2):
        assert run(DATA / "log.csv", features, "clicked", "1h", seeds, 1, report) == 0
        read = checked(report)
        rows = {row["variant"]: row for row in read["rows"]}
        if seeds == 1:
            first = rows["main effects only"]["log_loss"]
    assert rows["main effects only"]["log_loss"] == pytest.approx(first, abs=1e-9)
    assert read["data"] == "log.csv"
    low, high = rows["main effects' variances fixed"]["interval"]
    assert low < rows["main effects' variances fixed"]["difference"] < high


def _log(folder: Path, labels: str) -> Path:
    """A log of an event an hour with these labels, of the features of the test data."""
    head, row = (DATA / "log.csv").read_text(encoding="utf-8").splitlines()[:2]
    names, values = head.split(","), row.split(",")
    lines = [head]
    for hour, label in enumerate(labels):
        given = {"time": str(1_650_813_567_259 + 3_600_000 * hour), "clicked": label}
        lines.append(",".join(given.get(n, v) for n, v in zip(names, values, strict=True)))
    (folder / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "log.csv"


@pytest.mark.parametrize(("labels", "has_calibration"), [("000", False), ("111", True)])
def test_a_log_of_one_class_has_no_auc(
    labels: str, has_calibration: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Null in the report, which its schema allows, and a dash on the screen."""
    log, report = _log(tmp_path, labels), tmp_path / "r.json"
    assert run(log, DATA / "features.toml", "clicked", "1h", 1, 1, report) == 0
    rows, shown = checked(report)["rows"], capsys.readouterr().out
    assert all(row["auc"] is None for row in rows)
    assert all((row["calibration"] is not None) == has_calibration for row in rows)
    assert "–" in shown
    assert "nan" not in shown


def test_one_event_of_a_log_has_no_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caption speaks of events, not of markets."""
    log, report = _log(tmp_path, "0"), tmp_path / "r.json"
    assert run(log, DATA / "features.toml", "clicked", "1h", 2, 1, report) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(row["interval"] is None for row in checked(report)["rows"])
    assert "one event does not tell how events vary" in shown
    assert "nan" not in shown
    assert "market" not in shown


def test_learning_late_clicks_saves_most_of_what_losing_them_costs(tmp_path: Path) -> None:
    """With a third of the clicks late, learning them mends calibration and log loss."""
    assert late_clicks.run(0.33, 2, 30_000, tmp_path / "r.json") == 0
    none, lost, learned = checked(tmp_path / "r.json")["rows"]
    assert lost["difference"] > 2 * learned["difference"]
    assert lost["calibration"] < learned["calibration"] - 0.1 < none["calibration"]
