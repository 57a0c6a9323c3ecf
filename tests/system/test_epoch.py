"""F26 by hand: `keelson epoch new` under running services, two replicas of the command service among them."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from keelson.client import Client, ProblemError
from support.database import Cluster, Database
from support.projecting import assert_views_equal_fold, caught_up, pooled
from support.stack import Stack, running_stack
from support.waiting import eventually


async def begin_epoch(database: Database) -> None:
    """Begin an epoch as an operator does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keelson.cli", "epoch", "new", "--reason", "a test"),
        env={**os.environ, "KEELSON_DATABASE_URL": database.command_dsn},
    )
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def test_f26_services_that_run_go_over_to_the_new_epoch(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with (
        running_stack(cluster, database, tmp_path, commands=2) as stack,
        client_of(stack, 0) as first,
        client_of(stack, 1) as second,
        pooled(database.projector_dsn) as pool,
    ):
        before = await first.command("org.create", {"name": "acme"}, idempotency_key="made once", wait_s=5)
        org = {"org_id": before.result["org_id"]}
        warm = await second.command("org.rename", {**org, "name": "warm"}, wait_s=5)
        old = (await first.get("/v1/events")).body["position"]
        assert old == f"{before.epoch}-{warm.position}"

        await begin_epoch(database)

        # What is in the log is asked of the log: nobody waits for news to come around.
        for parameters in ({"after": old}, {"min_position": old}):
            assert await refusal(first, "/v1/events", **parameters) == (410, "cursor_expired")
        # The first has a state of that organisation in its cache that has moved, and both are of another epoch.
        renamed = await first.command("org.rename", {**org, "name": "umbrella"})
        unchanged = await second.command("org.rename", {**org, "name": "umbrella"}, wait_s=5)
        assert renamed.epoch == unchanged.epoch != before.epoch
        assert (renamed.changed, renamed.events[0].seq, unchanged.changed) == (True, 3, False)
        # What was answered once is answered so again, by whichever replica.
        for client in (first, second):
            again = await client.command("org.create", {"name": "acme"}, idempotency_key="made once")
            assert (again.position, again.result, again.epoch) == (before.position, before.result, renamed.epoch)

        await eventually(lambda: answers_in(first, renamed.epoch), timeout_s=5.0)
        for path in ("/v1/orgs", f"/v1/orgs/{org['org_id']}", "/v1/activity", "/v1/events"):
            assert await refusal(first, path, min_position=old) == (410, "cursor_expired")
        fresh = await first.get("/v1/orgs", min_position=f"{renamed.epoch}-{renamed.position}")
        assert [row["name"] for row in fresh.body["items"]] == ["umbrella"]

        assert await caught_up(pool) == renamed.position == warm.position + 2
        await assert_views_equal_fold(pool)
        activity = (await first.get("/v1/activity")).body["items"]
        assert any(row["type"] == "platform.epoch_began" and row["reason"] == "a test" for row in activity)


def client_of(stack: Stack, command: int) -> Client:
    return Client(stack.commands[command].url, stack.queries[0].url, stack.operator_token)


async def answers_in(client: Client, epoch: str | None) -> bool:
    return (await client.get("/v1/orgs")).headers["Keelson-Epoch"] == epoch


async def refusal(client: Client, path: str, **parameters: Any) -> tuple[int, str]:
    with pytest.raises(ProblemError) as caught:
        await client.get(path, **parameters)
    return caught.value.status, caught.value.code
