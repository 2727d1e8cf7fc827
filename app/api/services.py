"""What the endpoints call: made once for each process, found from every request."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from app.errors import NotReady
from app.serving.bundle import Bundle
from app.serving.click_rules import ClickRules
from app.serving.state import WorkerState
from app.serving.trial import Exploration
from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.events import EventWriter
from models.features import Encoder


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


def exploration_of(services: Services, bundle: Bundle) -> Exploration | None:
    """The budget for trying new ads; None where there is none."""
    settings = services.settings
    if settings.exploration_share <= 0:
        return None
    tried = services.state.trials.under(bundle.snapshot_id)
    return Exploration(settings.exploration_share, settings.exploration_impressions, tried)


def bundle_of(state: WorkerState) -> Bundle:
    """The bundle that one request uses throughout. Raises `NotReady`."""
    bundle = state.bundle
    if bundle is None:
        raise NotReady("no snapshot is loaded yet; GET /readyz says what is missing")
    return bundle
