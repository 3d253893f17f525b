"""Every test that takes `engine` holds for each of them."""

from __future__ import annotations

import pytest

from wsnode.server.engines import ENGINES


@pytest.fixture(scope="module", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of a server engine."""
    return request.param
