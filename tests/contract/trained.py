"""Snapshots as a training run would have recorded them, without its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np

from app.ids import uuid7
from app.storage import job_runs, snapshots
from app.storage.chunks import read_cursor
from app.storage.served import Plan
from app.storage.snapshots import Training
from models import snapshot as snapshot_folder
from models.snapshot import Verdict
from tests.contract.conftest import Api, now_ms


async def trained(
    api: Api,
    verdict: Verdict | None = None,
    *,
    damaged: bool = False,
    bias: float | None = None,
    canary: Plan | None = None,
) -> UUID:
    """Record the head under a new id, with another bias if one is given."""
    served = await snapshots.serving(api.database)
    assert served is not None
    store = api.settings.snapshot_store
    parent = snapshot_folder.load(store / str(served.head_id))
    manifest = msgspec.structs.replace(
        parent.manifest,
        id=uuid7(now_ms()),
        parent=served.head_id,
        created_ms=now_ms(),
        bias=parent.manifest.bias if bias is None else bias,
        verdict=verdict or parent.manifest.verdict,
    )
    sealed = snapshot_folder.write(store, replace(parent, manifest=manifest))
    if damaged:
        truncate(store / str(sealed.id) / "model.user_main.npy")
    run = await job_runs.start_run(api.database, now_ms())
    cursor = await read_cursor(api.database)
    training = Training(run.id, sealed.verdict.result, [sealed], cursor, cursor, 0)
    await snapshots.record(api.database, training, now_ms(), canary)
    return sealed.id


async def candidate(api: Api, *, bias: float | None = None) -> UUID:
    """A snapshot that was trained while the incumbent was pinned: the head, not served."""
    await snapshots.pin(api.database, "test")
    made = await trained(api, bias=bias)
    await snapshots.unpin(api.database, "test")
    return made


def logit(rate: float) -> float:
    """The bias of a model that gives every ad this pCTR."""
    return float(np.log(rate / (1 - rate)))


def truncate(file: Path) -> None:
    """Take the last byte."""
    file.write_bytes(file.read_bytes()[:-1])
