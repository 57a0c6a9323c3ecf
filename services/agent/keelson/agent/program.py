"""The agent as a program.

SIGTERM and SIGINT end the agent and leave its instances running; the next start on the same folder takes them up again.
`python -m keelson.agent end` ends them, of an agent that does not run.
Exit codes: 0 after a stop that was asked for; 1 after a failure; 2 when the operator must mend something first, which
one line on standard error names.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from keelson.agent.agent import Agent
from keelson.agent.driver import Driver
from keelson.agent.drivers.process import ProcessDriver, Rules
from keelson.agent.drivers.simulated import SimulatedDriver
from keelson.agent.enrolment import EnrolmentError, enrol
from keelson.agent.logs import configure_logging
from keelson.agent.secrets import Secrets
from keelson.agent.settings import AgentSettings
from keelson.agent.state import NodeFile, StateError, StateFolder
from keelson.agent.supervisor import Pace
from keelson.client import Client
from keelson.settings import SettingsError, unknown_in

# What the agent's loops send again by themselves need not be sent again for long within one call.
_RETRY_FOR_S = 2.0
_TIMEOUT_S = 10.0

_TOKEN = frozenset({"KEELSON_ENROLLMENT_TOKEN", "KEELSON_ENROLLMENT_TOKEN_FILE"})

_log = structlog.get_logger()


def run(arguments: Sequence[str]) -> int:
    """Run until a signal, or end what runs; give the process's exit code."""
    if arguments not in ([], ["end"]):
        return _refuse("usage: python -m keelson.agent [end]")
    try:
        settings = _load(os.environ)
    except SettingsError as error:
        return _refuse(str(error))
    configure_logging(settings.log_level)
    for variable, meant in unknown_in(os.environ, AgentSettings).items():
        _log.warning("setting_unknown", variable=variable, meant=meant)
    try:
        with StateFolder(Path(settings.state).absolute()) as folder:
            asyncio.run(_end(settings, folder) if arguments else _run_until_asked(settings, folder))
    except (StateError, EnrolmentError) as error:
        return _refuse(str(error))
    except Exception:  # noqa: BLE001 - the process's last word, which must not quote data
        _log.exception("agent_failed")
        return 1
    return 0


def _load(environ: Mapping[str, str]) -> AgentSettings:
    """Read the settings; of a node that has enrolled, not the token, whose file may be gone. Raises SettingsError."""
    without_token = {name: text for name, text in environ.items() if name not in _TOKEN}
    settings = AgentSettings.load(without_token)
    return settings if StateFolder(Path(settings.state)).has_node() else AgentSettings.load(environ)


async def _run_until_asked(settings: AgentSettings, folder: StateFolder) -> None:
    work = asyncio.ensure_future(_run(settings, folder))
    asked = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        _log.info("stop_asked", signal=number.name, consequence="instances go on")
        asked.set()
        work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await work
    except asyncio.CancelledError:
        if not asked.is_set():
            raise


async def _end(settings: AgentSettings, folder: StateFolder) -> None:
    """End all instances that run, and remove what was kept for them; an agent to come would start them anew."""
    node = folder.read_node()
    if node is None or settings.driver == "simulated":
        return
    async with Client(settings.command_url, settings.query_url, node.credential) as client:
        driver = _driver(settings, node, folder, client)
        runs = {instance.instance_id: run for instance, run in driver.recover()}
        async with asyncio.TaskGroup() as tasks:
            for run in filter(None, runs.values()):
                tasks.create_task(run.stop(settings.stop_grace_s))
        for instance_id in runs:
            driver.discard(instance_id)
            _log.info("instance_stopped", instance_id=instance_id, told=False)


async def _run(settings: AgentSettings, folder: StateFolder) -> None:
    node = await enrol(settings, folder)
    _log.info("agent_started", node_id=node.node_id, name=node.name, driver=settings.driver)
    async with Client(
        settings.command_url, settings.query_url, node.credential, timeout_s=_TIMEOUT_S, retry_for_s=_RETRY_FOR_S
    ) as client:
        agent = Agent(
            node.node_id,
            client,
            _driver(settings, node, folder, client),
            folder,
            pace=_pace(settings),
            heartbeat_interval_s=settings.heartbeat_interval_s,
        )
        await agent.run()


def _driver(settings: AgentSettings, node: NodeFile, folder: StateFolder, client: Client) -> Driver:
    if settings.driver == "simulated":
        return SimulatedDriver(host=settings.address)
    rules = Rules(
        node_id=node.node_id,
        host=settings.address,
        root=Path(settings.process_root or ".").absolute(),
        log_max_bytes=settings.log_max_bytes,
    )
    return ProcessDriver(folder.instances, rules, Secrets(client).reveal)


def _pace(settings: AgentSettings) -> Pace:
    return Pace(
        drain_s=settings.drain_s,
        stop_grace_s=settings.stop_grace_s,
        boot_timeout_s=settings.boot_timeout_s,
        restart_backoff_first_s=settings.restart_backoff_first_s,
        restart_backoff_max_s=settings.restart_backoff_max_s,
    )


def _refuse(why: str) -> int:
    """Say in one line why the agent does not start, and give its exit code."""
    sys.stderr.write(f"keelson: {why}\n")
    return 2
