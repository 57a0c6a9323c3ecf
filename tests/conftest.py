"""Fixtures for every test: a real PostgreSQL, and a database of one's own on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from support.database import Cluster, Database, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start one server for the session; KEELSON_TEST_POSTGRES_BIN chooses its programs."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    """Lend a fresh migrated database; dropped afterwards, whoever is connected."""
    async with cluster.fresh_database() as database:
        yield database
