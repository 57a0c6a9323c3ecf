"""Settings from the environment: one struct per service, read once, all that is wrong reported at once.

msgspec reads them, as it reads everything else: no second validation library, and constraints are written as they are
for commands and events.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

import msgspec
from msgspec import Meta

PREFIX = "KEELSON_"

_SECRET = {"secret": True}

# Values marked so are left out of every repr and message; give more constraints in a Meta of one's own.
Secret = Annotated[str, Meta(min_length=1, extra=_SECRET)]
Token = Annotated[str, Meta(min_length=16, extra=_SECRET)]
# A URL of a database may hold a password.
DatabaseUrl = Annotated[str, Meta(pattern="^postgres(ql)?://", extra=_SECRET)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class SettingsError(Exception):
    """The environment does not say what the service needs; one line for each variable, never a secret's value."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What all services have in common; a service adds its fields in a subclass. A field `x` is read from KEELSON_X."""

    database_url: DatabaseUrl
    listen_database_url: DatabaseUrl = ""
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Port
    operator_token: Token
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    pool_size: Annotated[int, Meta(ge=1, le=1000)] = 10
    acquire_timeout_s: Seconds = 2.0
    statement_timeout_s: Seconds = 5.0
    receive_deadline_s: Seconds = 10.0
    body_deadline_s: Seconds = 10.0
    shutdown_grace_s: Seconds = 10.0

    def __post_init__(self) -> None:
        if not self.listen_database_url:
            msgspec.structs.force_setattr(self, "listen_database_url", self.database_url)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as unset. Raises SettingsError with all that is wrong."""
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for field in msgspec.structs.fields(cls):
            try:
                _read(field, environ, values)
            except ValueError as error:
                wrong.append(f"{variable_of(field.name)}: {error}")
        if wrong:
            raise SettingsError("wrong settings: " + "; ".join(wrong))
        return cls(**values)

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={'***' if _is_secret(field.type) else repr(getattr(self, field.name))}"
            for field in msgspec.structs.fields(self)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def variable_of(field: str) -> str:
    """Give the name of the environment variable that a field is read from."""
    return PREFIX + field.upper()


def _read(field: msgspec.structs.FieldInfo, environ: Mapping[str, str], values: dict[str, Any]) -> None:
    text = environ.get(variable_of(field.name), "")
    if text:
        values[field.name] = _convert(text, field.type)
    elif field.required:
        raise ValueError("is not set")


def _convert(text: str, type_: Any) -> Any:
    try:
        return msgspec.convert(text, type_, strict=False)
    except msgspec.ValidationError as error:
        # msgspec repeats values that are not among a Literal's; a secret is never one of those.
        raise ValueError(str(error).replace("`", "")) from None


def _is_secret(type_: Any) -> bool:
    return any(isinstance(each, Meta) and bool((each.extra or {}).get("secret")) for each in get_args(type_))
