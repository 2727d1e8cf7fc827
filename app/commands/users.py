"""`adscent users`: erase a value of users, and prove that it is erased."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from uuid import UUID

from app.commands.session import with_database
from app.serving.tokens import TokenContent, Tokens
from app.settings import Settings
from app.storage import erased_events, erasures, keys, snapshots
from app.storage.engine import Database
from app.storage.erasures import Erasure
from app.storage.snapshot_store import open_store
from models import snapshot
from models.erasure import Erased, known_rows, zeroed
from models.errors import SnapshotCorrupt
from models.features import Encoder, pack
from models.schema import Schema, load_schema
from models.snapshot import Manifest
from models.tombstone import Tombstone, tombstone

_ACTOR = "cli"
_MAPPED = ("model.", "index.")


@dataclass(frozen=True, slots=True)
class Check:
    """One place where the value could be. `passed`: None for what is told but not judged."""

    place: str
    passed: bool | None
    found: str


def erase(settings: Settings, feature: str, value: str) -> Erasure:
    """Erase a value. Raises `FeatureUnknown`, `FeatureValueInvalid`."""
    meant = tombstone(load_schema(settings.features), feature, value)
    given = (meant.feature, meant.hash, meant.missing, _ACTOR)
    return with_database(settings, lambda database: erasures.erase(database, *given))


def check(settings: Settings, feature: str, value: str) -> list[Check]:
    """Look for a value everywhere it could be found, stored events and snapshots one by one."""
    schema = load_schema(settings.features)
    meant = tombstone(schema, feature, value)

    async def each(database: Database) -> list[Check]:
        return [one async for one in _checks(settings, database, schema, meant)]

    return with_database(settings, each)


async def _checks(
    settings: Settings, database: Database, schema: Schema, meant: Tombstone
) -> AsyncIterator[Check]:
    erased = await erasures.read(database)
    alone = Erased({meant.hash: meant.missing}, erased.version)
    is_erased = meant.hash in erased.missing
    yield Check("tombstone", is_erased, erasures.shown(meant.hash) if is_erased else "none")
    yield _requests(schema, meant, erased)
    yield await _tokens(database, schema, meant, erased)
    know, others = await erasures.knowing(database, erased.version)
    told = f"{len(know)} have applied every erasure, {len(others)} have not"
    yield Check("workers", is_erased and not others, told)
    stored = await erased_events.count(database, alone)
    yield Check("stored events", not stored, f"{stored} have the value")
    for one in _snapshots(settings, await snapshots.loadable(database), alone, erased):
        yield one
    ads = await erasures.ads_naming(database, meant.feature, meant.text)
    named = f"{len(ads)} ads name it" + (f": {', '.join(map(str, ads[:10]))}" if ads else "")
    yield Check("targeting", None, named)


def _requests(schema: Schema, meant: Tombstone, erased: Erased) -> Check:
    """Whether a new request that sends the value is one without it."""
    encoder, name = Encoder(schema, erased.missing), meant.feature.partition(".")[2]
    is_missing = encoder.user_hashes({name: meant.text}) == encoder.user_hashes({})
    return Check("new requests", is_missing, "sent again, it is " + _as(is_missing))


async def _tokens(database: Database, schema: Schema, meant: Tombstone, erased: Erased) -> Check:
    """Whether the event of a decision from before the erasure is stored without the value.

    A token is sealed and opened with the deployment's own keys, and goes no further.
    """
    encoder, name = Encoder(schema), meant.feature.partition(".")[2]
    blob = pack(encoder.encode_user({name: meant.text}), encoder.encode_ad({}))
    secrets, current = await keys.token_keys(database)
    tokens, nobody = Tokens(secrets, current, 1), UUID(bytes=token_bytes(16))
    token = tokens.seal(TokenContent(nobody, 0, 1, 0, nobody, 0, 0, 1.0, "", False, blob))
    kept = erased.blob(tokens.read(token).features)
    is_gone = kept == pack(encoder.encode_user({}), encoder.encode_ad({}))
    return Check("tokens in flight", is_gone, "in their events it is " + _as(is_gone))


def _snapshots(
    settings: Settings, loadable: list[Manifest], alone: Erased, erased: Erased
) -> list[Check]:
    """Whether a snapshot that may be served, now or after a rollback, would score with the value.

    Each is mapped and checked as a worker does it; one that is damaged never serves.
    """
    folders, in_files, would_serve, damaged = open_store(settings), 0, 0, 0
    for recorded in loadable:
        try:
            is_in_file, is_in_memory = _held(
                folders.fetch(recorded, _MAPPED), recorded, alone, erased
            )
        except SnapshotCorrupt:
            damaged += 1
        else:
            in_files, would_serve = in_files + is_in_file, would_serve + is_in_memory
    found = f"{would_serve} of {len(loadable)} would serve with it"
    return [
        Check("snapshots", not would_serve, found + f", {damaged} damaged" * bool(damaged)),
        Check("snapshot files", None, f"{in_files} hold its hash and vector until retention"),
    ]


def _held(folder: Path, recorded: Manifest, alone: Erased, erased: Erased) -> tuple[bool, bool]:
    """Whether a snapshot's files know the value, and whether what is loaded of them does."""
    model = snapshot.load_served(folder, recorded).model
    in_file = len(known_rows(model, alone)) > 0
    return in_file, len(known_rows(zeroed(model, erased), alone)) > 0


def _as(is_missing: bool) -> str:
    return "missing" if is_missing else "still there"
