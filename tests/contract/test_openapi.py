"""The OpenAPI document describes what the application does: generated calls find no 5xx."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from app.connection.overload import DEADLINE_HEADER, LONGEST_MS
from app.main import create_app
from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from tests.contract.conftest import SCOPES, Api, fill_catalog, promote_genesis, write_features

_document = create_app(Settings()).openapi()
_schema = schemathesis.openapi.from_dict(_document)
_CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


class _Server:
    """The application under uvicorn, in a thread of this process."""

    def __init__(self, settings: Settings, secret: str) -> None:
        config = uvicorn.Config(
            create_app(settings),
            port=0,
            log_config=None,
            loop="uvloop",
            http="app.connection.arrival:TimedProtocol",
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self.headers = {"Authorization": f"Bearer {secret}"}

    def start(self) -> None:
        """Start and wait until it is ready."""
        self._thread.start()
        while not self._server.started or httpx.get(self.url + "/readyz").status_code != 200:
            self._thread.join(0.02)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    def stop(self) -> None:
        """Stop and wait."""
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def server(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    """A ready application over a database of its own, and a key with every scope."""
    home = tmp_path_factory.mktemp("openapi")
    settings = Settings(
        home=home,
        features=write_features(home),
        database_url=postgres_url.rpartition("/")[0] + "/openapi",
        acknowledge_timeout_s=5.0,
    )
    secret = asyncio.run(_prepare(postgres_url, settings))
    found = _Server(settings, secret)
    found.start()
    yield found
    found.stop()


async def _prepare(postgres_url: str, settings: Settings) -> str:
    from app.storage import keys

    administration = Database(postgres_url)
    async with administration.session() as connection:
        await connection.execute("CREATE DATABASE openapi TEMPLATE adscent_template")
    await administration.close()
    assert settings.database_url is not None
    database = Database(settings.database_url)
    catalog = Catalog(database)
    await fill_catalog(catalog)
    await promote_genesis(database, settings, catalog)
    _, secret = await keys.create_api_key(database, "all", list(SCOPES), 0)  # type: ignore[arg-type]
    await database.close()
    return secret


@_schema.parametrize()
@hypothesis_settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_generated_calls_conform(case: schemathesis.Case, server: _Server) -> None:
    """Valid and invalid calls alike get a documented answer of the documented form."""
    if case.headers and DEADLINE_HEADER in case.headers and _is_deadline(case):
        case.headers[DEADLINE_HEADER] = str(LONGEST_MS)  # a short one may rightly be refused
    case.call_and_validate(base_url=server.url, headers=server.headers, checks=_CHECKS)


def _is_deadline(case: schemathesis.Case) -> bool:
    given = case.headers[DEADLINE_HEADER]
    return given.isascii() and given.isdecimal() and 1 <= int(given) <= LONGEST_MS


def test_every_route_is_called() -> None:
    """The generated calls are of every operation of the document, and it describes every route."""
    tried = {(one.ok().method.lower(), one.ok().path) for one in _schema.get_all_operations()}
    described = {(method, path) for path, calls in _document["paths"].items() for method in calls}
    assert tried == described
    assert len(tried) > 40


def test_examples_of_the_document_are_valid() -> None:
    """Every example fits the schema it stands beside."""
    store = {"components": _document["components"]}
    shown = 0
    for content in _bodies(_document):
        schema = {**content["schema"], **store}
        jsonschema.Draft202012Validator(schema).validate(content["example"])
        shown += 1
    assert shown > 14


def test_every_answer_has_an_example_that_fits() -> None:
    """Each answer in JSON, and each problem, shows one that its schema allows."""
    shown = 0
    for path, methods in _document["paths"].items():
        for call in methods.values():
            for code, described in call["responses"].items():
                for content in described.get("content", {}).values():
                    schema = {**content["schema"], "components": _document["components"]}
                    assert "example" in content, (path, code)
                    jsonschema.Draft202012Validator(schema).validate(content["example"])
                    shown += 1
    assert shown > 100


@pytest.mark.parametrize("code", [429, 503])
def test_faults_that_pass_show_themselves_and_when_to_come_back(code: int) -> None:
    """The example of a 429 or 503 has that status, and the header is described."""
    described = _document["paths"]["/v1/decisions"]["post"]["responses"][str(code)]
    [content] = described["content"].values()
    assert content["example"]["status"] == code
    assert "Retry-After" in described["headers"]


def _bodies(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        for call in methods.values():
            if "requestBody" in call:
                yield call["requestBody"]["content"]["application/json"]


@pytest.mark.anyio
async def test_document_is_served_for_any_key(api: Api) -> None:
    """Any key reads the document."""
    answer = await api.call("ingest", "GET", "/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")
