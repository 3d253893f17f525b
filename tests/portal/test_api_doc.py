"""What docs/api.md shows is what the API takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from portal.runs.api import RunIn, api
from portal.runs.models import NamedScenario
from portal.runs.seed import seed_scenarios
from stack import cli
from tests.portal.factories import make_user
from tests.portal.test_api import Caller

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"^```http\n(POST|PUT) (\S+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "body"), EXAMPLES, ids=[f"{n} {e[1]}" for n, e in enumerate(EXAMPLES)])
def test_each_example_is_taken(method: str, path: str, body: str) -> None:
    seed_scenarios(ROOT / "scenarios")
    caller = Caller(make_user("ada", role="operator"))
    send = caller.client.put if method == "PUT" else caller.client.post
    response = send(path, json.loads(body) if body else None, content_type="application/json")
    assert response.status_code in (200, 201), response.content
    assert NamedScenario.objects.exists()


def test_each_address_that_it_names_exists() -> None:
    paths = set(api.get_openapi_schema()["paths"]) | {"/api/v1/openapi.json"}
    concrete = {re.sub(r"/(smoke|parser)(?=/|$)", "/{name}", path) for path in re.findall(r"/api/v1/[\w/{}.-]+", TEXT)}
    assert concrete - paths == set()
    assert len(concrete) > 10


def test_each_field_of_a_run_is_explained_with_its_option() -> None:
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE))))
    assert explained == set(RunIn.model_fields)
    run = next(a for a in cli.parser()._actions if a.dest == "command").choices["run"]  # type: ignore[index,union-attr]
    options = {option for action in run._actions for option in action.option_strings}  # type: ignore[union-attr]
    assert set(re.findall(r"`(--[a-z-]+)", TEXT)) <= options
