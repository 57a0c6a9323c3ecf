"""A stack that is stopped, and started again on its volumes: what was made at its first start is still good."""

import json
import urllib.request
from typing import Any

from support.containers import Composed


def test_a_stack_that_was_stopped_goes_on_with_its_secrets_and_data(stack: Composed) -> None:
    token = stack.operator_token
    created = _ask(stack.command_url + "/v1/commands/org.create", token, {"name": "before-the-stop"})
    stack.run("make", "down")
    assert not stack.containers()
    stack.run("make", "up")
    assert stack.operator_token == token
    page = _ask(f"{stack.query_url}/v1/orgs?name=before-the-stop&min_position={created['position']}", token)
    assert [row["id"] for row in page["items"]] == [created["result"]["org_id"]]


def test_a_command_of_operators_leaves_what_runs_as_it_is(stack: Composed) -> None:
    """Even without --no-deps: the containers that it depends on are those of the images that there are."""
    before = {each.id: each.attrs["State"]["StartedAt"] for each in stack.replicas("postgres")}
    assert "the claims are what the log says" in stack.compose("run", "--rm", "migrate", "claims", "verify")
    assert {each.id: each.attrs["State"]["StartedAt"] for each in stack.replicas("postgres")} == before


def _ask(url: str, token: str, data: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(url, None if data is None else json.dumps(data).encode())  # noqa: S310 - loopback
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - likewise
        return json.load(response)
