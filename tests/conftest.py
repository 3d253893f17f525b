"""What holds for all tests."""

import signal

import pytest

from tests import lab
from tests.lab import no_lab, provisioned, torn_down, virtual_lab

__all__ = ["no_lab", "provisioned", "torn_down", "virtual_lab"]  # fixtures of one lab for all folders

# A shell that starts the tests in the background has them ignore SIGINT, and with them all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One lab serves all tests that need one, one after the other."""
    lab.in_order(items)
