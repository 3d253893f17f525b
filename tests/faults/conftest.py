"""The provisioned virtual lab, once for all fault tests on it."""

import pytest

from tests.faults.site import Site
from tests.lab import Provisioned


@pytest.fixture(scope="session")
def site(provisioned: Provisioned) -> Site:
    """Its hosts and its portal."""
    return Site(provisioned)
