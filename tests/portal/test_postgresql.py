"""What speaks to the database in a way of its own, on a real PostgreSQL; the rest of the tests has SQLite."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.portal.postgresql import cluster, programs
from tests.portal.test_database import VENDOR

ROOT = __file__.rpartition("/tests/")[0]
SUBSET = (
    "tests/portal/test_database.py",
    "tests/portal/test_states.py",
    "tests/portal/test_filters.py",
    "tests/portal/test_pages_list.py",
    "tests/portal/test_pages_home.py",
    "tests/portal/test_pages_history.py",
    "tests/portal/test_api_compare.py",
    "tests/portal/test_audit.py",
    "tests/portal/test_schedule_firing.py",
)


def test_the_tests_of_claims_filters_and_pages_pass_on_postgresql() -> None:
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL here: install Debian's postgresql")
    with cluster(found) as url:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUBSET],
            check=False,
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": url, VENDOR: "postgresql"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-4000:]
