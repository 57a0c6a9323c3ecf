"""Simulated nodes against real services: many in one process, each as a node is."""

import asyncio
from pathlib import Path

from keelson.agent.driver import Failure
from keelson.agent.fleet import Plan, SimulatedFleet
from support.agents import Operator, operating
from support.database import Cluster, Database
from support.stack import Stack, running_stack
from support.waiting import eventually

NODES = 12


def plan_for(stack: Stack) -> Plan:
    return Plan(command_url=stack.commands[0].url, query_url=stack.queries[0].url, heartbeat_interval_s=0.5)


async def all_have(operator: Operator, instance_ids: list[str], status: str) -> bool:
    rows = {row.id: row async for row in operator.client.instances.list(env_id=operator.env_id)}
    return all(rows[each].status == status for each in instance_ids)


async def test_simulated_nodes_enrol_run_fail_and_are_taken_up_again(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with running_stack(cluster, database, tmp_path) as stack, operating(stack) as operator:
        fleet = await SimulatedFleet.enrol(operator.client, plan_for(stack), NODES)
        assert len({node.node_id for node in fleet.nodes}) == NODES
        async with fleet:
            placed = [await operator.allocate(node.node_id) for node in fleet.nodes]
            await eventually(lambda: all_have(operator, placed, "ready"), 20.0)
            nodes = [node async for node in operator.client.nodes.list()]
            assert all(node.heartbeat_at is not None for node in nodes)
            await fleet.nodes[0].driver.runs[placed[0]].fail(Failure(reason_code="exited", exit_code=1))
            await eventually(lambda: fleet.nodes[0].driver.starts == 2)

            async def is_told() -> bool:
                return await operator.told(placed[0]) == ["booting", "ready", "failed", "booting", "ready"]

            await eventually(is_told, 20.0)
        # As if all agents had been killed: what they ran goes on, and nobody says anything.
        await asyncio.gather(
            *(
                operator.client.instance.set_desired_state(instance_id=each, desired_state="draining")
                for each in placed[1:]
            )
        )
        async with fleet:
            await eventually(lambda: all_have(operator, placed[1:], "stopped"), 20.0)
        assert [node.driver.starts for node in fleet.nodes] == [2, *[1] * (NODES - 1)]
        assert [bool(node.driver.runs) for node in fleet.nodes] == [True, *[False] * (NODES - 1)]
