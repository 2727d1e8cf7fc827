"""Who may import whom: reads every import of the program and fails on any edge not in the table."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "models", "jobs")

# Area → what its modules may import, themselves and the standard library included without saying.
# The longest area that a module's name starts with decides; a rule does not inherit from a shorter
# one. A target stands for everything below it.
RULES: dict[str, tuple[str, ...]] = {
    # The model: arrays in, arrays out.
    "models": ("models", "numpy", "msgspec", "xxhash"),
    "models.index": ("models", "numpy", "faiss"),
    "models.kernels": ("models", "numpy"),
    "models.kernels.compiled": ("models", "numpy", "numba", "llvmlite"),
    "models.kernels.lookup": ("models", "numpy", "numba"),
    # The database's only neighbour.
    "app.storage": (
        *("app.ids", "app.settings"),
        *(
            "models.types",
            "models.snapshot",
            "models.targeting",
            "models.erasure",
            "models.comparison",
        ),
        *("sqlalchemy", "asyncpg", "msgspec", "numpy"),
    ),
    "app.storage.snapshot_store": (
        *("app.storage", "app.settings", "models.snapshot", "models.errors", "fsspec"),
    ),
    "app.storage.migrate": ("app.storage", "alembic", "sqlalchemy"),
    # A request's way through memory; only the watcher knows that there is a database.
    "app.serving": ("models", "numpy", "msgspec", "cryptography"),
    "app.serving.watcher": (
        *("app.serving", "app.storage", "app.beside", "app.heap", "app.ids", "app.metrics"),
        *("app.settings", "models", "structlog"),
    ),
    # HTTP: parse, call, render.
    "app.api": (
        *("app.serving", "app.storage", "app.errors", "app.ids", "app.metrics", "app.settings"),
        *("app.connection.overload", "app.request_ids", "models"),
        *("fastapi", "starlette", "msgspec", "structlog"),
    ),
    "app.api.reports": (
        "app.api",
        "app.serving",
        "app.storage",
        "models",
        "fastapi",
        "msgspec",
        "pydantic",
    ),
    # What the processes are wired from.
    "app.beside": (),
    "app.heap": (),
    "app.ids": (),
    "app.settings": (),
    "app.logs": ("app.request_ids", "structlog"),
    "app.request_ids": (),
    "app.tracing": ("app.settings", "opentelemetry"),
    "app.metrics": ("models.types", "prometheus_client"),
    "app.database_url": ("app.settings", "app.storage"),
    "app.errors": ("app.storage", "models", "fastapi", "starlette", "msgspec", "structlog"),
    "app.connection": (
        *("app.errors", "app.metrics", "app.request_ids", "app.tracing"),
        *("fastapi", "starlette", "uvicorn", "structlog", "opentelemetry"),
    ),
    "app.preloaded": ("app.beside",),
    "app.lifespan": ("app", "models", "fastapi", "structlog"),
    "app.main": ("app", "fastapi", "starlette"),
    "app.commands": ("app", "jobs", "models", "uvicorn", "msgspec"),
    "app.cli": ("app", "jobs", "models", "typer", "rich", "msgspec"),
    # The jobs process, and the programs that learn from a log or a market.
    "jobs": (
        *("models", "app.storage", "app.settings", "app.ids", "app.tracing"),
        *("numpy", "msgspec", "structlog"),
    ),
    "jobs.__main__": (
        *("jobs", "models", "app.storage", "app.settings", "app.logs", "app.database_url"),
        *("app.tracing", "structlog", "prometheus_client"),
    ),
    # What workers map, in the form that serving reads.
    "jobs.catalog_image": ("app.serving.image", "models"),
    "jobs.comparison_measures": ("models", "app.storage", "prometheus_client"),
    "jobs.context": (
        "jobs.comparison_measures",
        "models",
        "app.storage",
        "app.settings",
        "structlog",
        "prometheus_client",
    ),
    "jobs.schedule": ("jobs", "app.storage", "app.settings", "apscheduler"),
    "jobs.scratch": ("duckdb",),
    "jobs.logfile": ("jobs.scratch", "models", "numpy", "duckdb"),
    "jobs.output": ("models", "msgspec"),
    "jobs.transfer": (
        *(
            "jobs.logfile",
            "jobs.scratch",
            "models",
            "app.storage",
            "app.settings",
            "numpy",
            "msgspec",
            "duckdb",
        ),
    ),
    "jobs.pages": (),
    "jobs.replay": ("jobs", "models", "numpy", "msgspec", "rich"),
    "jobs.market": ("models", "app.storage", "app.settings", "numpy", "msgspec", "httpx", "rich"),
    "jobs.lab.ablation": (
        *("jobs.market", "jobs.logfile", "jobs.output", "jobs.bench.machine", "models"),
        *("numpy", "msgspec", "rich"),
    ),
    # It serves by the auction's own rules.
    "jobs.lab.exploration": (
        *("app.serving.auction", "jobs.market", "jobs.output", "jobs.lab.exploration_report"),
        *("jobs.bench.machine", "models", "numpy", "msgspec", "rich"),
    ),
    "jobs.lab": (
        *("jobs.market", "jobs.output", "jobs.pages", "jobs.bench.machine", "models"),
        *("numpy", "msgspec", "rich"),
    ),
    "jobs.demo": (
        *("jobs.market", "jobs.output", "models", "app.storage", "app.settings"),
        *("numpy", "msgspec", "httpx", "rich"),
    ),
    # A web process of its own: it reads storage, and changes things through the HTTP API only.
    "jobs.dashboard": (
        *("models.schema", "models.snapshot", "models.targeting", "models.types"),
        *(
            "models.comparison",
            "app.storage",
            "app.settings",
            "nicegui",
            "starlette",
            "httpx",
            "structlog",
            "prometheus_client",
        ),
    ),
    "jobs.dashboard.server": (
        *("jobs.dashboard", "app.settings", "app.storage", "app.logs", "app.database_url"),
        *("models.features", "fastapi", "nicegui", "starlette", "uvicorn"),
    ),
    # It writes the files that it imports.
    "jobs.bench.import_files": (*("jobs", "models", "app.storage", "duckdb", "rich"),),
    "jobs.bench": (
        *("jobs", "models", "app", "numpy", "msgspec", "httpx", "rich"),
        *("fastapi", "uvicorn", "structlog", "prometheus_client"),
    ),
}

# A model that reads the clock or draws its own randomness cannot be repeated.
IMPURE = {
    *("asyncio", "logging", "multiprocessing", "random", "secrets", "socket", "subprocess"),
    *("threading", "time", "urllib"),
}


def _modules() -> dict[str, Path]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {_name(path): path for path in sorted(files)}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = _modules()


def _targets(tree: ast.AST) -> Iterator[str]:
    """Every imported module, inside functions too; `from app import ids` is `app.ids`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _is_below(name: str, area: str) -> bool:
    return name == area or name.startswith(area + ".")


def _rule(module: str) -> str | None:
    """The longest area that holds the module; files of one stem (`app.metrics_server`) share it."""
    areas = [area for area in RULES if _is_below(module, area) or module.startswith(area + "_")]
    return max(areas, key=len, default=None)


def _forbidden(module: str, source: str) -> list[str]:
    """The imports of `source` that the rules do not let `module` make."""
    targets = [
        target
        for target in _targets(ast.parse(source))
        if target.partition(".")[0] not in sys.stdlib_module_names
    ]
    if not targets:
        return []
    area = _rule(module)
    assert area is not None, f"{module} has no rule: add its area to the table"
    allowed = (area, *RULES[area])
    return [target for target in targets if not any(_is_below(target, one) for one in allowed)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_its_area_may(module: str) -> None:
    """No import of the module leaves the edges of the table."""
    assert _forbidden(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", [name for name in MODULES if _is_below(name, "models")])
def test_models_are_pure(module: str) -> None:
    """No module of `models` imports a clock, randomness of its own, threads or the network."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert {target.partition(".")[0] for target in _targets(tree)}.isdisjoint(
        IMPURE - _exempt(module)
    )
    reads = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert reads.isdisjoint({"environ", "getenv"} - _exempt(module))


def _exempt(module: str) -> set[str]:
    return {
        # FAISS reads OMP_NUM_THREADS when it is imported; its one importer checks that it was set.
        "models.index": {"environ"},
        "models.kernels.parallel": {"threading"},
    }.get(module, set())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.offset", "import faiss"),
        ("models.trainer", "from numba import njit"),
        ("models.types", "from app import ids"),
        ("models.gate", "import sqlalchemy.orm"),
        ("app.serving.pipeline", "from app.storage.engine import Database"),
        ("app.serving.live", "def load():\n    import app.storage"),
        ("app.storage.catalog", "from models.offset import Model"),
        ("app.api.score", "from jobs.retrain import run"),
        ("jobs.retrain", "from app.serving import pipeline"),
        ("jobs.replay.page", "import httpx"),
    ],
)
def test_a_forbidden_edge_is_found(module: str, source: str) -> None:
    """The check itself notices edges that must not be."""
    assert _forbidden(module, source) != []


def test_every_area_of_the_table_exists() -> None:
    """A rule for a module that is gone would be read as if it meant something."""
    stale = [area for area in RULES if not any(_is_below(name, area) for name in MODULES)]
    assert set(stale) <= {"jobs.bench"}
