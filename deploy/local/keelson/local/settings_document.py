"""`docs/settings.md`: every setting of every program, as its code declares it."""

import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as types

from keelson.settings import DeclaredSettings, expected_of, is_secret, variable_of

DOCUMENT = Path(__file__).parents[4] / "docs" / "settings.md"

# By name, as the supervisor runs them: nothing here imports a service.
DECLARED: Mapping[str, str] = {
    "command": "keelson.command.settings:CommandSettings",
    "query": "keelson.query.settings:QuerySettings",
    "projector": "keelson.projector.settings:ProjectorSettings",
    "scheduler": "keelson.scheduler.settings:SchedulerSettings",
    "agent": "keelson.agent.settings:AgentSettings",
    "cli": "keelson.cli.settings:CliSettings",
}

INTRODUCTION = """\
# Settings

Generated from the code by `make docs`; not edited by hand. Of the services, of the node agent
([agents.md](agents.md)), and of the command line (`keelson`, here `cli`); `python -m keelson.projector` with a command
is told the same as the service. Those of `make run` are in [README.md](../README.md#settings-of-make-run).

Settings are environment variables, read once at the start; an empty one counts as not set. All that is wrong is told at
once, in one line that names each variable and what was expected, and the process ends with code 2. What it was given is
not shown: it may be a secret.

**Files.** Any `KEELSON_X` may be given as `KEELSON_X_FILE`, the path of a file that holds it; ends of line at its end
are left out. Both set is an error, and so is a file that cannot be read or is empty. So a password need be neither in a
URL nor encoded:

    KEELSON_DATABASE_URL=postgresql://keelson_query@postgres:5432/keelson
    KEELSON_DATABASE_PASSWORD_FILE=/run/secrets/query_password

**Misspelt ones.** A service that finds a variable `KEELSON_…` which it does not know logs `setting_unknown` when it
starts, with the one that may be meant, and goes on. It does not refuse: one file of variables may serve several
services, and Kubernetes adds such variables for every Service named `keelson-…`.
"""

_HEAD = "| variable | of | takes | default | means |\n|---|---|---|---|---|\n"


def settings_document() -> str:
    """Give the text of `docs/settings.md`."""
    return f"{INTRODUCTION}\n{_HEAD}{''.join(_rows())}"


def declared() -> dict[str, type[DeclaredSettings]]:
    """Give the settings of each program."""
    return {name: pkgutil.resolve_name(place) for name, place in DECLARED.items()}


def _rows() -> Iterator[str]:
    """Give a row for each variable, those of most programs first, each where it is declared."""
    found: dict[str, dict[str, msgspec.structs.FieldInfo]] = {}
    for program, settings in declared().items():
        for field in msgspec.structs.fields(settings):
            found.setdefault(field.name, {})[program] = field
    for name, fields in sorted(found.items(), key=lambda item: -len(item[1])):
        yield _row(name, fields)


def _row(name: str, fields: Mapping[str, msgspec.structs.FieldInfo]) -> str:
    """Give a variable's row; raises ValueError where programs say different things of it, but for its default."""
    said = {(expected_of(field.type), _meaning(field), is_secret(field.type)) for field in fields.values()}
    if len(said) > 1:
        raise ValueError(f"{variable_of(name)} means different things: {said}")
    [(expected, meaning, secret)] = said
    cells = [f"`{variable_of(name)}`", _programs(fields), expected, _defaults(fields), meaning + "; secret" * secret]
    return f"| {' | '.join(cells)} |\n"


def _programs(fields: Mapping[str, Any]) -> str:
    services = set(DECLARED) - {"agent", "cli"}
    if set(DECLARED) <= set(fields):
        return "all"
    if services <= set(fields):
        return ", ".join(["services", *(each for each in fields if each not in services)])
    return ", ".join(fields)


def _defaults(fields: Mapping[str, msgspec.structs.FieldInfo]) -> str:
    by_program = {program: _default(field) for program, field in fields.items()}
    if len(set(by_program.values())) == 1:
        return next(iter(by_program.values()))
    return ", ".join(f"{default} {program}" for program, default in by_program.items())


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT:
        return "must be set"
    return f"`{field.default}`" if field.default != "" else ""


def _meaning(field: msgspec.structs.FieldInfo) -> str:
    """Give what a field is declared to mean; raises ValueError if that is not said."""
    kind = types.type_info(field.type)
    meaning = (kind.extra_json_schema or {}).get("description") if isinstance(kind, types.Metadata) else None
    if not meaning:
        raise ValueError(f"{variable_of(field.name)} has no description")
    return str(meaning)
