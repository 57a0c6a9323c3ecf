"""An agent as a process, against real services, with real instances; an operator places them by hand."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from keelson.client.reads.instances import InstanceRow
from support.agents import Operator, agent_of, enrolled, operating, pids_of
from support.database import Cluster, Database
from support.instances import SERVES
from support.proxy import proxied
from support.stack import running_stack
from support.waiting import eventually
from system.test_epoch import begin_epoch

CANARY = "the-canary-of-the-agent"


async def answers(instance: InstanceRow) -> int:
    """Ask an instance where it says that it is; give the status that it answers with."""
    assert instance.endpoints is not None
    endpoint = instance.endpoints["http"]
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        session.get(f"http://{endpoint.host}:{endpoint.port}/") as response,
    ):
        return response.status


async def drain(operator: Operator, instance_id: str) -> None:
    await operator.client.instance.set_desired_state(instance_id=instance_id, desired_state="draining")


async def test_an_instance_is_run_reached_drained_and_gone(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        ready = await operator.until(instance_id, "ready")
        assert await answers(ready) == 200
        assert len(pids_of(instance_id)) == 1
        await drain(operator, instance_id)
        stopped = await operator.until(instance_id, "stopped")
        assert stopped.reason_code is None
        assert not pids_of(instance_id)
        assert await operator.told(instance_id) == ["booting", "ready", "draining", "stopped"]
        await eventually(lambda: not list((agent.state / "instances").iterdir()))


async def test_f43_secrets_are_handed_over_and_nobody_else_hears_of_them(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    (tmp_path / "tell.py").write_text(
        "import os, pathlib\n"
        "key = pathlib.Path(os.environ['KEELSON_SECRETS_DIR'], 'API_KEY').read_text()\n"
        "pathlib.Path('told').write_text(key)\n" + SERVES[-1]
    )
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack, [sys.executable, "tell.py"], secrets={"API_KEY": CANARY}) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        await operator.until(instance_id, "ready")
        assert (tmp_path / "told").read_text() == CANARY
        holding = [path for path in agent.state.rglob("*") if path.is_file() and CANARY in path.read_text()]
        assert [path.name for path in holding] == ["API_KEY"]
        revealed = [event for event in await operator.events() if event.type == "secret.revealed"]
        assert [event.actor_id for event in revealed] == [agent.node_id]

        [pid] = pids_of(instance_id)
        os.kill(pid, signal.SIGKILL)  # what is started again has its secrets already
        await eventually(lambda: _is_another(instance_id, pid))
        await operator.until(instance_id, "ready")
        await agent.kill()
        await agent.start()
        await eventually(lambda: agent.logged("instance_adopted"))
        assert len([event for event in await operator.events() if event.type == "secret.revealed"]) == 1

        await drain(operator, instance_id)
        await operator.until(instance_id, "stopped")
        assert not [path for path in agent.state.rglob("*") if path.is_file() and CANARY in path.read_text()]
        credential = (agent.state / "node.json").read_text().partition("kls_")[2][:30]
        for canary in (CANARY, credential, agent.child.environ["KEELSON_ENROLLMENT_TOKEN"]):
            assert canary
            assert canary not in agent.log


def _is_another(instance_id: str, pid: int) -> bool:
    now = pids_of(instance_id)
    return bool(now) and pid not in now


async def test_a_crash_of_an_instance_is_told_and_mended(cluster: Cluster, database: Database, tmp_path: Path) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path, restart_backoff_first_s=3.0) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        before = await operator.until(instance_id, "ready")
        [pid] = pids_of(instance_id)
        os.kill(pid, signal.SIGKILL)
        failed = await operator.until(instance_id, "failed")  # which it is for as long as it is not tried again
        assert (failed.reason_code, failed.exit_code) == ("exited", 137)
        after = await operator.until(instance_id, "ready")
        assert after.endpoints == before.endpoints
        assert await operator.told(instance_id) == ["booting", "ready", "failed", "booting", "ready"]


async def test_the_agents_end_ends_no_instance_and_the_next_takes_them_up(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        ready = await operator.until(instance_id, "ready")
        pids = pids_of(instance_id)
        for end in (agent.kill, agent.child.stop):
            await end()
            assert pids_of(instance_id) == pids
            assert await answers(ready) == 200
            adopted = len(agent.logged("instance_adopted"))
            await agent.start()
            await eventually(lambda: len(agent.logged("instance_adopted")) == adopted + 1)  # noqa: B023
        assert pids_of(instance_id) == pids
        assert await operator.told(instance_id) == ["booting", "ready"]
        os.kill(pids[0], signal.SIGKILL)  # it is watched, though it is nobody's child
        await eventually(lambda: _is_another(instance_id, pids[0]))

        async def is_told() -> bool:
            return (await operator.told(instance_id))[-3:] == ["failed", "booting", "ready"]

        await eventually(is_told, 20)  # the row may say "ready" as it was before


async def test_without_the_control_plane_it_keeps_what_it_has_and_says_later_how_that_went(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        crashing, staying = [await operator.allocate(agent.node_id) for _ in range(2)]
        for instance_id in (crashing, staying):
            await operator.until(instance_id, "ready")
        kept = pids_of(staying)
        for service in (stack.commands[0], stack.queries[0]):
            await stack.kill(service)
        await eventually(lambda: agent.logged("control_plane_away"))
        [first] = pids_of(crashing)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: _is_another(crashing, first))
        await agent.kill()
        [second] = pids_of(crashing)
        os.kill(second, signal.SIGKILL)  # while there is neither an agent nor a control plane
        await agent.start()
        await eventually(lambda: _is_another(crashing, second))
        assert pids_of(staying) == kept
        # What is told later need not be new to the command service: both are ready again, where they were before.
        before = {instance_id: len(agent.told(instance_id)) for instance_id in (crashing, staying)}
        for service in (stack.commands[0], stack.queries[0]):
            await stack.restart(service)
        for instance_id, told in before.items():
            await eventually(lambda: "ready" in agent.told(instance_id)[told:], 30.0)  # noqa: B023
            assert await answers(await operator.until(instance_id, "ready")) == 200
        assert await operator.told(staying) == ["booting", "ready"]
        await drain(operator, crashing)
        await operator.until(crashing, "stopped")
        assert not pids_of(crashing)


async def test_what_was_given_up_meanwhile_is_ended_without_a_word(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        await operator.until(instance_id, "ready")
        await agent.kill()
        await operator.client.node.set_state(node_id=agent.node_id, state="offline")
        await operator.client.instance.set_desired_state(instance_id=instance_id, desired_state="stopped")
        assert pids_of(instance_id)
        head = len(await operator.events())
        await agent.start()
        await eventually(lambda: not pids_of(instance_id), 20.0)
        await eventually(lambda: not list((agent.state / "instances").iterdir()))
        assert len(await operator.events()) == head
        assert (await operator.until(instance_id, "stopped")).reason_code == "node_lost"


async def test_what_an_agent_has_left_is_ended_by_hand_while_none_runs(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()

    async def end(environ: Mapping[str, str]) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "keelson.agent", "end"), env=environ, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), 30.0)
        return process.returncode, said.decode()

    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack, secrets={"KEY": CANARY}) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        await operator.until(instance_id, "ready")
        pids = pids_of(instance_id)
        code, said = await end(agent.child.environ)
        assert code == 2
        assert "is the state of an agent that runs" in said
        assert pids_of(instance_id) == pids
        await agent.kill()
        assert await end(agent.child.environ) == (0, "")
        assert not pids_of(instance_id)
        assert not list((agent.state / "instances").iterdir())
        assert await end(agent.child.environ) == (0, "")
        await agent.start()
        await eventually(lambda: pids_of(instance_id))
        await operator.until(instance_id, "ready")


async def test_f26_an_agent_goes_over_to_another_epoch_and_ends_nothing_for_it(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        await operator.until(instance_id, "ready")
        pids = pids_of(instance_id)
        before = len(agent.told(instance_id))
        await begin_epoch(database)
        await eventually(lambda: agent.logged("epoch_changed"), 30.0)
        await eventually(lambda: agent.told(instance_id)[before:] == ["ready"], 30.0)  # which is nothing new
        assert pids_of(instance_id) == pids
        assert await operator.told(instance_id) == ["booting", "ready"]
        await drain(operator, instance_id)
        await operator.until(instance_id, "stopped")
        assert not pids_of(instance_id)


async def test_a_node_that_was_removed_goes_on_with_what_it_runs(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "well").touch()
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        instance_id = await operator.allocate(agent.node_id)
        await operator.until(instance_id, "ready")
        await agent.kill()
        await operator.client.node.set_state(node_id=agent.node_id, state="offline")
        await operator.client.instance.set_desired_state(instance_id=instance_id, desired_state="stopped")
        await operator.client.node.remove(node_id=agent.node_id)
        pids = pids_of(instance_id)
        await agent.start()
        refused = await eventually(lambda: agent.logged("credential_refused"))
        assert refused[0]["level"] == "error"
        assert pids_of(instance_id) == pids


async def test_a_token_is_good_once_and_not_looked_at_again(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        enrolled(stack, operator, tmp_path) as agent,
    ):
        await agent.kill()
        agent.child.environ = {**agent.child.environ, "KEELSON_ENROLLMENT_TOKEN": "kls_something-else"}
        started = len(agent.logged("agent_started"))
        await agent.start()
        await eventually(lambda: len(agent.logged("agent_started")) == started + 1)

        second = agent_of(stack, tmp_path)
        second.child.environ = {**agent.child.environ, "KEELSON_STATE": str(second.state)}
        await second.start()
        assert await second.child.wait() == (
            "ended with exit code 2, saying 'keelson: the enrolment token is not good: it was used, or has "
            "expired; give this agent a new one'"
        )
        third = agent_of(stack, tmp_path)
        await third.start()
        assert "KEELSON_ENROLLMENT_TOKEN must be set" in await third.child.wait()
        fourth = agent_of(stack, tmp_path, state=str(agent.state))
        await fourth.start()
        assert "is the state of an agent that runs" in await fourth.child.wait()


async def test_an_enrolment_whose_answer_is_lost_says_so_and_is_not_made_twice(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    async with (
        running_stack(cluster, database, tmp_path) as stack,
        operating(stack) as operator,
        proxied(stack.commands[0].url) as proxy,
    ):
        awaited = (await operator.client.node.create_enrollment_token()).result
        assert awaited.token is not None
        agent = agent_of(stack, tmp_path, enrollment_token=awaited.token, command_url=f"http://127.0.0.1:{proxy.port}")
        proxy.to_client.hold()
        await agent.start()

        async def has_enrolled() -> bool:
            return any(event.type == "node.enrolled" for event in await operator.events())

        await eventually(has_enrolled, 20.0)
        proxy.cut()
        proxy.to_client.release()
        for _ in range(2):
            await agent.start()  # the first time it runs
            ended = await asyncio.wait_for(agent.child.wait(), 30.0)
            assert "exit code 2" in ended
            assert "its credential is lost" in ended
        assert [event.type for event in await operator.events()].count("node.enrolled") == 1
