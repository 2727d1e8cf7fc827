"""The documented metrics are those of the code; dashboard and alerts use no other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from app import metrics, metrics_server
from jobs.context import Measures

_TOP = Path(__file__).parents[2]
_DOCUMENT = _TOP / "docs" / "metrics.md"
_DASHBOARD = _TOP / "docs" / "grafana" / "adscent.json"
_ALERTS = _TOP / "docs" / "alerts.yml"
_NAME = re.compile(r"\badscent_[a-z_]+\b")
_ROW = re.compile(r"^\| `(adscent_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
_OURS = ("adscent_",)

Row = tuple[str, str, str, str]


def _row(name: str, kind: str, labels: object, text: str) -> Row:
    total = "_total" if kind == "counter" else ""
    listed = ", ".join(f"`{label}`" for label in labels)  # type: ignore[attr-defined]
    return (name + total, kind, listed, text)


def _of_collector(found: Any) -> Iterator[Row]:
    if isinstance(found, MetricWrapperBase):
        yield _row(found._name, found._type, found._labelnames, found._documentation)
        return
    for family in found.collect():
        yield _row(family.name, family.type, family._labelnames, family.documentation)


def _rows() -> list[Row]:
    """Every family of `serve` and `jobs` as the document has it."""
    registry = CollectorRegistry()
    Measures(registry)
    of_serve = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    of_jobs = list(registry._collector_to_names)
    found = [row for one in (*of_serve, *of_jobs) for row in _of_collector(one)]
    processes = metrics_server._processes([])
    return found + [row for family in processes for row in _family(family)]


def _family(family: Any) -> Iterator[Row]:
    yield _row(family.name, family.type, family._labelnames, family.documentation)


def test_document_lists_every_metric() -> None:
    """Name, kind, labels and meaning are word for word those of the code, and there is no other."""
    documented = _ROW.findall(_DOCUMENT.read_text())
    expected = _rows()
    missing = [row for row in expected if row not in documented]
    lines = "\n".join(
        f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in missing
    )
    assert not missing, f"docs/metrics.md lacks\n{lines}"
    assert sorted(documented) == sorted(expected)


def test_names_follow_prometheus() -> None:
    """Counters end in _total, times are in seconds, nothing else has these endings."""
    for name, kind, _, _ in _rows():
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|minutes)(_|$)", name)


def _exposed() -> set[str]:
    """Every name that a query may use."""
    found = set()
    for name, kind, _, _ in _rows():
        parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {name + part for part in parts}
    return found


def _expressions() -> Iterator[tuple[str, str]]:
    for panel in _panels(json.loads(_DASHBOARD.read_text())["panels"]):
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for match in re.finditer(r"^ +expr: (.+)$", _ALERTS.read_text(), re.MULTILINE):
        yield "alert", match[1]


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def test_every_query_is_of_metrics_that_exist() -> None:
    """A dashboard of renamed metrics is empty, an alert on them never fires."""
    known, expressions = _exposed(), list(_expressions())
    assert len(expressions) > 40
    for title, expression in expressions:
        used = set(_NAME.findall(expression))
        assert used, (title, expression)
        assert used <= known, (title, used - known)


def test_every_label_of_a_query_is_one_of_its_metric() -> None:
    """A selector or a grouping by a label that is not there matches nothing."""
    labels = {name: set(re.findall(r"`(\w+)`", listed)) for name, _, listed, _ in _rows()}
    for title, expression in _expressions():
        names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in _NAME.findall(expression)}
        allowed = {"le", "pid", "job", "instance"}.union(
            *(labels.get(name, set()) for name in names)
        )
        used = set(re.findall(r"[{,] *(\w+) *(?:=~|!~|!=|=)", expression))
        for grouped in re.findall(r"\b(?:by|on|without) *\(([^)]*)\)", expression):
            used |= {label.strip() for label in grouped.split(",") if label.strip()}
        assert used <= allowed, (title, expression, used - allowed)


def test_every_alert_says_what_to_do() -> None:
    """Each has a severity, a summary, and a remedy for whoever is woken by it."""
    for rule in re.split(r"^ +- alert: ", _ALERTS.read_text(), flags=re.MULTILINE)[1:]:
        for part in ("severity: ", "summary: ", "description: ", "expr: "):
            assert part in rule, rule


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_are_valid_to_prometheus() -> None:
    """Prometheus's own checker takes the rules, and they fire when they should."""
    for arguments in (["check", "rules", str(_ALERTS)], ["test", "rules", "docs/alerts.test.yml"]):
        command = [str(shutil.which("promtool")), *arguments]
        subprocess.run(command, check=True, cwd=_TOP, capture_output=True)  # noqa: S603


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_queries_of_the_dashboard_are_valid_to_prometheus(tmp_path: Path) -> None:
    """Prometheus's own parser takes each, with a time in place of Grafana's."""
    rules = [
        {"record": f"dashboard:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(_expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = [str(shutil.which("promtool")), "check", "rules", str(file)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


def test_dashboard_can_be_imported() -> None:
    """Unique panel ids, a data source to choose, and no panel without a query or a title."""
    board = json.loads(_DASHBOARD.read_text())
    panels = [panel for panel in _panels(board["panels"]) if panel["type"] != "row"]
    assert len({panel["id"] for panel in _panels(board["panels"])}) == len(
        list(_panels(board["panels"]))
    )
    assert board["id"] is None
    assert [one["type"] for one in board["templating"]["list"]] == ["datasource"]
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
