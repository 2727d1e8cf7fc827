"""A line of the log is one JSON object without a secret, whoever writes it and whatever happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.serving.tokens import TokenContent, Tokens
from app.storage import keys
from app.storage.engine import Database
from tests.integration.making import now_ms

_TOP = Path(__file__).resolve().parents[2]
_PROGRAM = """
import logging, sys
import structlog
from app import logs
logs.configure("debug")
log = structlog.get_logger("x")
for secret in sys.stdin.read().split():
    print("=", file=sys.stderr, flush=True)
    nested = {"list": [secret], "deep": {"a": secret}}
    log.info("said", text=f"before {secret} after", nested=nested)
    log.info(f"in the event {secret}")
    log.info("named", api_key="k-1", password="k-2", nested={"Authorization": "k-3", "b": [1]})
    logging.getLogger("other").warning("by the library: %s", secret)
    try:
        raise RuntimeError(f"first line\\n{secret}\\nlast line")
    except RuntimeError as error:
        log.error("failed", exc_info=error)
        logging.getLogger("other").exception("failed")
"""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, str]]:
    """Each secret by its name, with all that was logged of it."""
    secrets = SECRETS | {f"token {number}": token for number, token in enumerate(_tokens())}
    ended = subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-c", _PROGRAM],
        input=" ".join(secrets.values()),
        env={"PYTHONPATH": str(_TOP)},
        capture_output=True,
        text=True,
        check=True,
    )
    logged = ended.stderr.split("=\n")[1:]
    return dict(zip(secrets, zip(secrets.values(), logged, strict=True), strict=True))


def _tokens() -> list[str]:
    """A token of each version, under the first and the last key id."""
    content = TokenContent(uuid4(), now_ms(), 7, 0, uuid4(), 1, 1000, 1.0, "home", False, b"packed")
    found = []
    for key_id in (0, 255):
        tokens = Tokens({key_id: bytes(32)}, key_id, 86_400_000)
        found += [tokens.seal(content), tokens.seal(content_with_many(content))]
    return found


def content_with_many(content: TokenContent) -> TokenContent:
    """The same decision with more features than a short token holds."""
    from msgspec import structs

    return structs.replace(content, features=bytes(range(256)))


SECRETS = {
    "key": "adscent_" + "aB3-_" * 8 + "xyz",
    "address of the database": "postgresql://adscent:Hunter2%40two@db.example:5432/adscent",
    "address with a bare @": "postgresql://adscent:Hunter2@two@db.example/adscent",
    "proxy": "https://user:Hunter2two@proxy.example",
}


@pytest.mark.parametrize("name", [*SECRETS, *(f"token {number}" for number in range(4))])
def test_secret_is_removed_wherever_it_stands(told: dict[str, tuple[str, str]], name: str) -> None:
    """In a text, in lists and objects, in the event itself, in tracebacks, from other libraries."""
    secret, text = told[name]
    assert len([json.loads(line) for line in text.splitlines()]) == 6
    assert text.count("[removed]") >= 9
    assert secret not in text
    assert "Hunter2" not in text
    assert secret[12:40] not in text or name in ("address of the database", "proxy")
    for named in ("k-1", "k-2", "k-3"):
        assert named not in text
    assert "last line" in text
    if "database" in name:
        assert "db.example" in text  # what helps to find the fault stays


@pytest.mark.anyio
async def test_error_of_the_database_hides_its_parameters(database: Database) -> None:
    """What SQLAlchemy says of a failed statement has no value in it: some are secrets."""
    _, secret = await keys.create_api_key(database, "shop", ["score"], now_ms())
    statement = sa.text("SELECT CAST(:secret AS no_such_type)")
    async with database.engine.connect() as connection:
        with pytest.raises(DBAPIError, match="no_such_type") as failed:
            await connection.execute(statement, {"secret": secret})
    assert secret not in str(failed.value)
