"""The dashboard in a real browser, over real processes: what an operator does with it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.browsing import PHONE, Deployment, Visit, chromium, deployed, visiting

PAGES = ("/", "/model", "/snapshots", "/ads", "/ads/3", "/events", "/retrains")
ABSURD = 1_000_000.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment that has learned something."""
    with deployed(tmp_path_factory.mktemp("home")) as found:
        found.show()
        assert found.trained()["state"] == "accepted"
        yield found


@pytest.fixture(scope="module")
def browser(deployment: Deployment) -> Iterator[Browser]:
    """One browser for all tests, started last: its loop must not be there for the others."""
    assert deployment
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Browser, deployment: Deployment) -> Iterator[Visit]:
    """A profile of its own in which ana is logged in."""
    with visiting(browser, deployment.dashboard) as found:
        found.log_in(deployment.secret("ana"))
        expect(found.page.get_by_role("heading", name="Overview")).to_be_visible()
        yield found


def test_only_an_admin_key_logs_in(browser: Browser, deployment: Deployment) -> None:
    """A wrong key and one without the scope are refused, and say what to do."""
    with visiting(browser, deployment.dashboard) as visit:
        for secret in ("adscent_wrong", deployment.secret("bob")):
            visit.log_in(secret)
            alert = visit.page.get_by_role("alert")
            expect(alert).to_contain_text("adscent keys create")
        visit.page.goto(f"{visit.base}/ads?q=3")
        expect(visit.page).to_have_url(f"{visit.base}/login?next=%2Fads%3Fq%3D3")
        assert httpx.get(f"{visit.base}/ads").status_code == 401
        visit.page.get_by_label("API key").fill(deployment.secret("ana"))
        visit.press("Log in")
        expect(visit.page).to_have_url(f"{visit.base}/ads?q=3")
        cookie = next(c for c in visit.context.cookies() if c["name"] == "adscent_dashboard")
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert deployment.secret("ana") not in cookie["value"]


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_pages_need_nothing_from_elsewhere(
    browser: Browser, deployment: Deployment, size: str
) -> None:
    """Every page is whole with no request to another address, no error, no sideways scrolling."""
    given = {"viewport": PHONE} if size == "phone" else {}
    with visiting(browser, deployment.dashboard, **given) as visit:
        visit.log_in(deployment.secret("ana"))
        for path in PAGES:
            visit.open(path)
            expect(visit.page.get_by_role("heading", level=1)).to_be_visible()
            too_wide = "document.documentElement.scrollWidth > window.innerWidth"
            assert not visit.page.evaluate(too_wide), path
        assert visit.outside == []
        assert visit.faults == []


def test_a_paused_ad_is_gone_from_decisions(visit: Visit, deployment: Deployment) -> None:
    """Found, paused, confirmed by both workers, and served no more; the audit names the key."""
    assert 10 in deployment.served()
    visit.open("/ads")
    visit.page.get_by_label("Search").fill("10")
    visit.page.get_by_role("button", name="Pause ad 10").click()
    assert "Confirmed by 2 workers" in visit.confirm("Pause")
    assert all(10 not in deployment.served() for _ in range(10))
    expect(visit.page.get_by_role("button", name="Resume ad 10")).to_be_visible()
    visit.open("/")
    expect(visit.page.get_by_text("ana changed ad 10").first).to_be_visible()
    deployment.call("PATCH", "/v1/ads/10", json={"state": "active"})


def test_escape_changes_nothing(visit: Visit, deployment: Deployment) -> None:
    """A question that is not answered is no change; the button has the focus again."""
    visit.open("/ads/9")
    visit.press("Retire …")
    question = visit.page.get_by_role("alertdialog")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    visit.page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    assert deployment.call("GET", "/v1/ads/9")["state"] == "active"
    expect(visit.page.get_by_role("button", name="Retire …")).to_be_focused()


def test_a_refused_snapshot_appears_with_its_reason(visit: Visit, deployment: Deployment) -> None:
    """Live, on a page that was open before anyone asked for the absurd run."""
    visit.open("/snapshots")
    rows = visit.page.get_by_role("row").filter(has_text="refused")
    before = rows.count()
    deployment.show(1)
    run = deployment.trained(step_size=ABSURD)
    assert run["state"] == "refused"
    expect(rows).to_have_count(before + 1)
    expect(rows.first).to_contain_text(run["reasons"][0])
    rows.first.get_by_role("link").click()
    expect(visit.page.get_by_text("A refused snapshot never serves")).to_be_visible()
    expect(visit.page.get_by_role("button", name="Serve …")).to_have_count(0)


def test_a_run_is_asked_for_by_keyboard(visit: Visit, deployment: Deployment) -> None:
    """Enter in a field asks, Enter confirms; the run appears with how it ended."""
    deployment.show(1)
    visit.open("/retrains")
    visit.page.get_by_label("Step size").fill("1000000")
    visit.page.keyboard.press("Enter")
    question = visit.page.get_by_role("alertdialog")
    expect(question).to_contain_text("step size 1,000,000")
    expect(question.get_by_role("button", name="Train")).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(question).to_contain_text("Asked for")
    visit.page.keyboard.press("Escape")
    newest = visit.page.get_by_role("row").nth(1)
    expect(newest).to_contain_text("by ana")
    expect(newest).to_contain_text(re.compile("refused|empty"))


def test_a_rollback_holds_on_every_worker(visit: Visit, deployment: Deployment) -> None:
    """The snapshot before serves, pinned; then new ones may serve again."""
    deployment.show(1)
    deployment.trained()
    before = _serving(deployment)
    visit.open("/snapshots")
    visit.press("Roll back …")
    question = visit.page.get_by_role("alertdialog")
    expect(question).to_contain_text(f"Snapshot {str(before['id'])[-8:]} serves.")
    named = question.inner_text()
    assert "Confirmed by 2 workers" in visit.confirm("Roll back")
    after = _serving(deployment)
    assert f"goes back to {str(after['id'])[-8:]}" in named
    assert after["id"] != before["id"]
    assert after["is_pinned"]
    expect(visit.page.get_by_text("by rollback of ana")).to_be_visible()
    visit.press("Let new ones serve …")
    visit.confirm("Let them serve")
    assert not _serving(deployment)["is_pinned"]


def test_a_training_run_takes_no_button_away(visit: Visit, deployment: Deployment) -> None:
    """While one is about to press it, another snapshot serves: focus and element stay."""
    visit.open("/snapshots")
    button = visit.page.get_by_role("button", name="Roll back …")
    button.focus()
    deployment.show(1)
    deployment.trained()
    name = str(_serving(deployment)["id"])[-8:]
    expect(visit.page.get_by_role("link", name=f"snapshot {name}").first).to_be_visible()
    expect(button).to_be_focused()


def test_a_rollback_of_what_serves_no_more_is_refused(visit: Visit, deployment: Deployment) -> None:
    """Another snapshot took over while the question was open: nothing changes, and it says so."""
    visit.open("/snapshots")
    visit.press("Roll back …")
    visit.page.get_by_role("alertdialog").wait_for()
    deployment.show(1)
    deployment.trained()
    serving = _serving(deployment)
    told = visit.confirm("Roll back")
    assert "Not done" in told
    assert f"snapshot {serving['id']} serves now" in told
    assert _serving(deployment)["id"] == serving["id"]


@pytest.mark.parametrize("path", ["/nosuch", "/ads/abc", "/snapshots/abc"])
def test_a_wrong_address_has_a_way_back(visit: Visit, path: str) -> None:
    """In words, whatever is wrong with it."""
    answer = visit.page.goto(visit.base + path)
    assert answer is not None
    assert answer.status == 404
    expect(visit.page.get_by_text("There is no such page here")).to_be_visible()
    visit.press("To the overview")
    expect(visit.page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_canary_is_started_and_ended(visit: Visit, deployment: Deployment) -> None:
    """An earlier snapshot answers a tenth, beside the one that serves, until it is ended."""
    deployment.show(1)
    deployment.trained()
    items = deployment.call("GET", "/v1/snapshots")["items"]
    other = next(
        one["id"]
        for one in items
        if not one["is_serving"] and one["verdict"]["result"] == "accepted"
    )
    visit.open(f"/snapshots/{other}")
    visit.press("Canary, 10 % …")
    visit.page.get_by_label("Why?").fill("trying it out")
    told = visit.confirm("Start the canary")
    assert "answers 10 %" in told
    assert "Confirmed by 2 workers" in told
    visit.open("/snapshots")
    expect(visit.page.get_by_text("trying it out").first).to_be_visible()
    visit.press("End the canary …")
    assert "The canary is over." in visit.confirm("End the canary")
    expect(visit.page.get_by_role("button", name="End the canary …")).to_have_count(0)


def _serving(deployment: Deployment) -> dict[str, object]:
    items = deployment.call("GET", "/v1/snapshots")["items"]
    return next(dict(one) for one in items if one["is_serving"])


def test_why_not_is_answered(visit: Visit, deployment: Deployment) -> None:
    """A paused ad is explained as paused, with its expected revenue; what was typed stays."""
    deployment.call("PATCH", "/v1/ads/8", json={"state": "paused"})
    visit.open("/ads/8")
    visit.page.get_by_label("geo").fill("us")
    visit.press("Explain")
    expect(visit.page.get_by_text("The ad is paused. Resume it.")).to_be_visible()
    expect(visit.page.get_by_text("Expected per thousand")).to_be_visible()
    expect(visit.page.get_by_label("geo")).to_have_value("us")
    deployment.call("PATCH", "/v1/ads/8", json={"state": "active"})


def test_a_retired_ad_cannot_come_back(visit: Visit, deployment: Deployment) -> None:
    """What the server refuses is told with its remedy."""
    visit.open("/ads/7")
    deployment.call("PATCH", "/v1/ads/7", json={"state": "paused"})
    visit.press("Resume …")
    deployment.call("PATCH", "/v1/ads/7", json={"state": "retired"})
    told = visit.confirm("Resume")
    assert "Not done" in told
    assert "retired" in told


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    """The first stop skips the navigation, the second and third are in it."""
    visit.open("/events")
    visit.page.keyboard.press("Tab")
    skip = visit.page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Tab")
    expect(visit.page.get_by_role("link", name="Overview")).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(visit.page).to_have_url(f"{visit.base}/")


def test_dark_follows_the_system_and_the_switch(browser: Browser, deployment: Deployment) -> None:
    """As the system says, until someone says otherwise; that stays on the next page."""
    with visiting(browser, deployment.dashboard, color_scheme="dark") as visit:
        visit.log_in(deployment.secret("eve"))
        visit.open("/")
        body = visit.page.locator("body")
        expect(body).to_have_css("background-color", "rgb(18, 21, 27)")
        visit.press("Theme: system")
        expect(body).to_have_css("background-color", "rgb(251, 250, 248)")
        visit.open("/model")
        expect(body).to_have_css("background-color", "rgb(251, 250, 248)")


def test_a_revoked_key_is_logged_out(browser: Browser, deployment: Deployment) -> None:
    """Within seconds, on the page that is open."""
    with visiting(browser, deployment.dashboard) as visit:
        visit.log_in(deployment.secret("eve"))
        visit.open("/ads")
        deployment.command("keys", "revoke", str(deployment.keys["eve"][0]))
        expect(visit.page).to_have_url(f"{visit.base}/login?next=%2Fads", timeout=15_000)


def test_logging_out_ends_the_session(visit: Visit) -> None:
    """The old cookie is good for nothing."""
    cookies = {c["name"]: c["value"] for c in visit.context.cookies()}
    visit.press("Log out")
    expect(visit.page).to_have_url(f"{visit.base}/login")
    assert httpx.get(f"{visit.base}/", cookies=cookies).status_code == 401


def test_guessing_keys_is_slowed_down(deployment: Deployment) -> None:
    """After five wrong keys one has to wait. The last test here: it locks this machine out."""
    with httpx.Client(base_url=deployment.dashboard) as client:
        statuses = []
        for _ in range(6):
            page = client.get("/login").text
            csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            form = {"csrf": csrf, "key": "adscent_guess"}
            headers = {"Origin": deployment.dashboard}
            statuses.append(client.post("/login", data=form, headers=headers).status_code)
        assert statuses[-1] == 429
        assert client.post("/login", data=form).status_code == 403
