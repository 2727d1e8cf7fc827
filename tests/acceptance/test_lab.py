"""The divergence lab end to end, small: report, page, figures."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from jobs.lab.run import run
from tests.acceptance.pages import check_stands_alone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one quick lab has written its report and page."""
    made = tmp_path_factory.mktemp("lab")
    assert run(1, made / "report.json", made / "page.html", quick=True) == 0
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> dict:
    """The report, checked against its JSON schema."""
    read = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "schemas" / "lab.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(read)
    return read


def test_every_cause_meets_every_method(report: dict) -> None:
    """One cell for each of the quick lab's causes, methods and radii."""
    methods = {cell["method"] for cell in report["cells"]}
    assert methods >= {"none", "decay", "clipping", "projection", "dual", "augmented"}
    assert {cell["cause"] for cell in report["cells"]} == set(report["causes"])
    keys = [
        tuple(cell[name] for name in ("step", "cause", "method", "variant", "radius"))
        for cell in report["cells"]
    ]
    assert len(set(keys)) == len(keys)


def test_steps_too_long_blow_up_only_what_is_free(report: dict) -> None:
    """Without constraint norms leave their radius many times over, under projection they do not."""
    largest = {
        cell["method"]: cell["norm_ratio"]
        for cell in report["cells"]
        if cell["cause"] == "step_size" and cell["radius"] == 1.0 and not cell["variant"]
    }
    assert largest["none"] is None or largest["none"] > 3
    assert largest["projection"] <= 1.0001


@pytest.mark.usefixtures("report")
def test_the_page_stands_alone(folder: Path) -> None:
    """Its charts are drawn in the page; nothing is loaded or run."""
    text = (folder / "page.html").read_text(encoding="utf-8")
    check_stands_alone(text, drawings=5)
