"""What a person may use of a run: its API, and its dashboard.

The dashboard is started once visitors come, so that it delays nobody's first answer.
"""

from __future__ import annotations

import asyncio
import socket
import time

import httpx

from app.settings import Settings
from app.storage import keys
from jobs.demo.children import Child
from jobs.demo.deployment import Deployment
from jobs.demo.stage import Story

_READY_S = 60.0
_LOOK_EVERY_S = 0.25
_WHO = "you"


async def open_dashboard(deployment: Deployment, settings: Settings, story: Story) -> None:
    """Tell the API's address with a key, then start `adscent dashboard` and tell its own.

    Its port is the setting's, or another one if that is taken.
    """
    now_ms = time.time_ns() // 1_000_000
    _, key = await keys.create_api_key(
        deployment.database, _WHO, ["score", "ingest", "admin"], now_ms, "demo"
    )
    story.api = (deployment.api, key)
    story.tell(f"The API is at {deployment.api}. Try: {_call(deployment.api, key)}", "✓")
    port = _port(settings.dashboard_port)
    own = {"ADSCENT_DASHBOARD_HOST": "127.0.0.1", "ADSCENT_DASHBOARD_PORT": str(port)}
    log = deployment.home / "logs" / "dashboard.log"
    child = await Child.start(
        "adscent dashboard", ["-m", "app.cli.main", "dashboard"], deployment.environment | own, log
    )
    deployment.parts.append(child)
    address = f"http://127.0.0.1:{port}"
    if await _answers(address):
        story.dashboard = (address, key)
        story.tell(f"The dashboard is at {address}; its key for this run is {key}", "✓")


def _call(address: str, key: str) -> str:
    """A request to paste into a shell."""
    body = '{"user":{},"slots":3}'
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return f"curl -s {address}/v1/decisions {headers} -d '{body}'"


async def _answers(address: str) -> bool:
    """Wait until it does, not for ever: on a busy machine it may come too late for a short run."""
    deadline = time.monotonic() + _READY_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                if (await client.get(f"{address}/healthz")).is_success:
                    return True
            except httpx.HTTPError:
                pass  # not yet
            await asyncio.sleep(_LOOK_EVERY_S)
    return False


def _port(wanted: int) -> int:
    """The wanted port if it is free, otherwise any."""
    for port in (wanted, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as one:
                return int(one.getsockname()[1])
        except OSError:
            continue
    return wanted
