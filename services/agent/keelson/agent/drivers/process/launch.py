"""Starting an instance's command."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from keelson.agent.drivers.process.folder import LOGS, InstanceFolder
from keelson.client.reads.nodes import DesiredInstance

MARKER = "KEELSON_INSTANCE_ID"


class Launched(subprocess.Popen[bytes]):
    """A process that may well outlive the agent, so nothing is wrong when the agent lets go of it."""

    def __del__(self) -> None:
        """Do not complain."""


def marker_of(instance_id: str) -> str:
    """Give the variable, `NAME=value`, that all processes of an instance were started with, and no others."""
    return f"{MARKER}={instance_id}"


def environment_of(
    instance: DesiredInstance, node_id: str, ports: Mapping[str, int], folder: InstanceFolder
) -> dict[str, str]:
    """Give the environment: the agent's PATH, the instance's variables, and over those what we tell every instance."""
    told = {
        MARKER: instance.instance_id,
        "KEELSON_ENV_ID": instance.env_id,
        "KEELSON_PROCESS": instance.process,
        "KEELSON_NODE_ID": node_id,
        "KEELSON_RELEASE": str(instance.release_number),
        "KEELSON_SECRETS_DIR": str(folder.secrets),
    }
    told |= {f"PORT_{name.upper().replace('-', '_')}": str(port) for name, port in ports.items()}
    return {"PATH": os.environ.get("PATH", os.defpath), **instance.spec.variables, **told}


def launch(instance: DesiredInstance, environment: Mapping[str, str], root: Path, folder: InstanceFolder) -> Launched:
    """Start the command in a session of its own, its output appended to its logs; raises OSError and ValueError.

    When this returns, the command has been started; when it raises, nothing has.
    """
    stdout, stderr = (folder.open_log(name) for name in LOGS)
    try:
        return Launched(
            instance.spec.command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    finally:
        os.close(stdout)
        os.close(stderr)
