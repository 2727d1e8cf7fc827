"""What the endpoints call: made once for each process, found from every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid4

from fastapi import Request

from app.errors import NotReady
from app.serving.bundle import Bundle
from app.serving.click_rules import ClickRules
from app.serving.state import WorkerState
from app.serving.trial import Exploration, Trials
from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.events import EventWriter
from models.features import Encoder

Role = Literal["incumbent", "canary"]
"""What a snapshot that answers is: metrics name this, never the snapshot."""


CUT_OFF = (
    "this worker has not reached the database for so long (ADSCENT_SERVE_ALONE_S) that it may not"
    " know of pauses; it serves again as soon as it has caught up"
)


@dataclass(frozen=True, slots=True)
class Services:
    """The settings, the worker's memory and the ways into the database.

    `encoder` is the deployment's feature schema: new ads are checked against it.
    """

    settings: Settings
    encoder: Encoder
    state: WorkerState
    database: Database
    catalog: Catalog
    events: EventWriter
    rules: ClickRules


def services_of(request: Request) -> Services:
    """The services of the process that answers this request."""
    services: Services = request.app.state.services
    return services


def exploration_of(services: Services, bundle: Bundle, trials: Trials) -> Exploration | None:
    """The budget for trying new ads; None where there is none."""
    settings = services.settings
    if settings.exploration_share <= 0:
        return None
    tried = trials.under(bundle.snapshot_id)
    return Exploration(settings.exploration_share, settings.exploration_impressions, tried)


def answering(
    state: WorkerState, user_key: str = "", decision_id: UUID | None = None
) -> tuple[Bundle, Trials, Role]:
    """The bundle that one request uses throughout, with its trials and its role.

    It is the canary's for the canary's share of users, without a key of the user for its share of
    decisions, without either for its share of calls.
    Raises `NotReady`.
    """
    bundle, canary = bundle_of(state), state.canary
    if canary is not None and canary.takes(user_key, decision_id or uuid4()):
        return canary.bundle, canary.trials, "canary"
    return bundle, state.trials, "incumbent"


def bundle_of(state: WorkerState) -> Bundle:
    """The incumbent's bundle. Raises `NotReady`."""
    bundle = state.bundle
    if bundle is None:
        raise NotReady("no snapshot is loaded yet; GET /readyz says what is missing")
    if not state.lease.holds():
        raise NotReady(CUT_OFF)
    return bundle
