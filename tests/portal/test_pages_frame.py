"""What every page has: a way in and out, a theme, a place to start reading, and pages for errors."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.template.loader import get_template
from django.test import Client, RequestFactory

from portal.accounts.models import User
from portal.runs.icons import ICONS
from portal.runs.states import State
from portal.runs.templatetags.shown import STATES
from tests.portal.factories import make_finished, make_run, make_user
from tests.portal.pages import Page, page

pytestmark = pytest.mark.django_db
STATIC = settings.ROOT / "portal" / "static"
TEMPLATES = settings.ROOT / "portal" / "templates"


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def browser(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


# --- in and out ---------------------------------------------------------------------------------
def test_one_signs_in_and_comes_to_where_one_wanted_to_go(client: Client, ada: User) -> None:
    found = page(client.get("/accounts/login/?next=/runs/new"))
    assert found.one("input[name=next]").attributes["value"] == "/runs/new"
    response = client.post(
        "/accounts/login/", {"username": "ada", "password": "a long pass phrase", "next": "/runs/new"}
    )
    assert response["Location"] == "/runs/new"
    assert "next=/" in Client().get("/")["Location"]


def test_a_wrong_password_says_so_and_keeps_the_name(client: Client, ada: User) -> None:
    found = page(client.post("/accounts/login/", {"username": "ada", "password": "wrong"}))
    assert found.one("[role=alert]").text.startswith("Please enter a correct username and password.")
    assert found.one("#id_username").attributes["value"] == "ada"
    empty = page(client.post("/accounts/login/", {"username": "ada", "password": ""}))
    assert empty.one("[role=alert]").text == "Enter both your user name and your password."


def test_one_signs_out_by_post(browser: Client) -> None:
    found = page(browser.get("/runs/"))
    form = found.one("#user-menu form").attributes
    assert (form["method"], form["action"]) == ("post", "/accounts/logout/")
    assert browser.get("/accounts/logout/").status_code == 405
    assert browser.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert browser.get("/runs/").status_code == 302


# --- theme --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cookie", "theme"), [(None, "system"), ("dark", "dark"), ("light", "light"), ('"><script>', "system")]
)
def test_the_server_writes_the_chosen_theme_so_that_nothing_flashes(
    browser: Client, cookie: str | None, theme: str
) -> None:
    if cookie is not None:
        browser.cookies["theme"] = cookie
    found = page(browser.get("/runs/"))
    assert found.one("html").attributes["data-theme"] == theme
    pressed = [b.attributes["data-theme-choice"] for b in found.all("[aria-pressed=true]")]
    assert pressed == [theme]


# --- every page ---------------------------------------------------------------------------------
def pages(client: Client, ada: User) -> dict[str, Page]:
    """One of each kind."""
    done = make_finished(ada)
    running, waiting, failed = make_run(ada, State.RUNNING), make_run(ada), make_run(ada, State.FAILED)
    addresses = {
        "home": "/",
        "list": "/runs/",
        "new": "/runs/new",
        "lab": "/lab/",
        "api": "/runs/api",
        "finished": f"/runs/{done.pk}/",
        "running": f"/runs/{running.pk}/",
        "queued": f"/runs/{waiting.pk}/",
        "failed": f"/runs/{failed.pk}/",
        "compare": f"/runs/compare?base={done.pk}&contender={done.pk}",
    }
    return {name: page(client.get(address)) for name, address in addresses.items()}


def test_every_page_can_be_read_without_sight_or_mouse(browser: Client, ada: User) -> None:
    for name, found in pages(browser, ada).items():
        assert found.one("html").attributes["lang"] == "en", name
        assert found.one("title").whole_text.endswith("· wslab"), name
        assert found.one("body").all("a")[0].attributes == {"class": "skip", "href": "#main"}, name
        assert len(found.all("main")) == len(found.all("h1")) == 1, name
        ids = [element.attributes["id"] for element in found.all("[id]")]
        assert len(ids) == len(set(ids)), f"{name}: an id is there twice"
        named = {i for e in found.all("[aria-labelledby]") for i in e.attributes["aria-labelledby"].split()}
        described = {i for e in found.all("[aria-describedby]") for i in e.attributes["aria-describedby"].split()}
        opened = {e.attributes["popovertarget"] for e in found.all("[popovertarget]")}
        assert named | described | opened <= set(ids), name
        labelled = {label.attributes["for"] for label in found.all("label")}
        for field in found.all("input, select, textarea"):
            if field.attributes.get("type") != "hidden":
                assert field.attributes.get("id") in labelled or "aria-label" in field.attributes, name


def test_no_page_has_a_script_or_style_inside_or_asks_anybody_else(browser: Client, ada: User) -> None:
    for name, found in pages(browser, ada).items():
        for element in found.all("script"):
            assert element.whole_text == "", name
        assert not found.all("style") + found.all("[style]") + found.all("base"), name
        for element in found._walk():
            assert not [attribute for attribute in element.attributes if attribute.startswith("on")], name
            for attribute in ("src", "href", "action", "hx-get", "hx-post", "data-charts"):
                address = element.attributes.get(attribute, "/")
                local = not re.match(r"(?i)[a-z]+:|//", address)
                assert local or "Grafana" in element.text, f"{name}: {attribute}={address}"


def test_every_form_that_writes_carries_its_token(browser: Client, ada: User) -> None:
    for name, found in pages(browser, ada).items():
        for form in found.all("form[method=post]"):
            assert form.all("input[name=csrfmiddlewaretoken]"), name


def test_a_write_without_the_token_is_refused_on_a_page_that_explains(ada: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ada)
    run = make_run(ada)
    response = strict.post(f"/runs/{run.pk}/cancel")
    assert response.status_code == 403
    assert "its form has expired" in page(response).one("main").text
    run.refresh_from_db()
    assert run.state == State.QUEUED


def test_the_nav_says_where_one_is(browser: Client, ada: User) -> None:
    found = pages(browser, ada)
    here = {name: [a.text for a in f.all("nav [aria-current=page]")] for name, f in found.items()}
    assert here["home"] == ["Home"]
    assert (here["list"], here["new"], here["lab"], here["api"]) == (["Runs"], ["New run"], ["Lab"], ["API"])
    assert {tuple(here[name]) for name in ("finished", "running")} == {("Runs",)}
    assert here["compare"] == ["Compare"]


def test_the_api_page_lists_every_route_of_the_api(browser: Client) -> None:
    found = page(browser.get("/runs/api"))
    routes = [code.whole_text for code in found.all("tbody code")]
    assert "POST /api/v1/runs" in routes
    assert "GET /api/v1/runs/{run_id}/result" in routes
    link = found.one("main a.button").attributes["href"]
    assert browser.get(link).json()["info"]["title"] == "wslab"


@pytest.mark.parametrize("code", ["403", "404", "500"])
def test_error_pages_stand_on_their_own(code: str) -> None:
    found = Page.of(get_template(f"{code}.html").render({}, None))
    assert f"Error {code}" in found.text
    assert found.one("main a.button").attributes["href"] == "/runs/"
    dark = RequestFactory().get("/")
    dark.COOKIES["theme"] = "dark"
    with_request = Page.of(get_template(f"{code}.html").render({}, dark))
    assert with_request.one("html").attributes["data-theme"] == "dark"


# --- what is served beside the pages ------------------------------------------------------------
def test_vendored_files_are_those_of_their_packages() -> None:
    vendor = STATIC / "vendor"
    sums = dict(reversed(line.split()) for line in (vendor / "SHA256SUMS").read_text().splitlines())
    there = {str(file.relative_to(vendor)) for file in vendor.rglob("*") if file.is_file()}
    assert there - {"SHA256SUMS", "README.md"} == set(sums)
    for name, digest in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name
    for folder in (folder for folder in vendor.iterdir() if folder.is_dir()):
        assert (folder / "LICENSE").is_file(), folder
        assert f"| {folder.name} |" in (vendor / "README.md").read_text()


def test_every_static_file_that_a_page_names_exists() -> None:
    names = {
        name
        for template in TEMPLATES.rglob("*.html")
        for name in re.findall(r"{% static '([^']+)' %}", template.read_text())
    }
    assert {"wslab.css", "favicon.svg", "js/portal.js"} <= names
    assert not [name for name in names if finders.find(name) is None]


def test_there_is_one_style_sheet_and_it_defines_every_token_that_it_uses() -> None:
    sheets = [file.name for file in STATIC.rglob("*.css") if "vendor" not in file.parts]
    assert sheets == ["wslab.css"]
    text = (STATIC / "wslab.css").read_text()
    assert set(re.findall(r"var\((--[\w-]+)", text)) == set(re.findall(r"^\s*(--[\w-]+):", text, re.MULTILINE))


def test_every_class_that_a_template_uses_has_a_rule() -> None:
    sheet = (STATIC / "wslab.css").read_text()
    scripts = "".join(file.read_text() for file in (STATIC / "js").glob("*.js"))
    for template in sorted(TEMPLATES.rglob("*.html")):
        text = re.sub(r"{%.*?%}|{{.*?}}", " ", template.read_text())
        for names in re.findall(r'class="([^"]*)"', text):
            for name in names.split():
                known = re.search(rf"\.{re.escape(name)}(?![\w-])", sheet + scripts)
                assert known or name == "c", f"{Path(template).name}: .{name} has no rule"


def test_every_state_has_a_shape_and_a_word() -> None:
    assert set(STATES) == set(State.values)
    assert {shape for shape, _, _ in STATES.values()} <= set(ICONS)
