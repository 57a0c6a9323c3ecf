"""How settings are declared, and read: a struct with a field for each, its constraints in the type, described there."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Self, get_args

import msgspec
from msgspec import Meta

from keelson.settings import database
from keelson.settings.environment import FILE_SUFFIX, PREFIX, UnreadableError, read_text, variable_of
from keelson.settings.words import expected_of

_SECRET = {"secret": True}

# Values marked so are left out of every repr and message; give more constraints in a Meta of one's own.
Secret = Annotated[str, Meta(min_length=1, extra=_SECRET)]
Token = Annotated[str, Meta(min_length=16, extra=_SECRET)]
OperatorToken = Annotated[
    Token,
    Meta(
        description="lets its bearer be the operator, whatever the log says: for emergencies, and the projector's "
        "status; without it the vault's credentials alone count; to `keelson bootstrap`, the first operator's token"
    ),
]
# A URL of a database may hold a password.
DatabaseUrl = Annotated[
    str,
    Meta(pattern="^postgres(ql)?://", extra={**_SECRET, "expected": database.EXPECTED, "check": database.check_url}),
]
WorkDatabase = Annotated[DatabaseUrl, Meta(description="the database, and the role to work in it as")]
DatabasePassword = Annotated[
    Secret, Meta(description="the role's password, unless the URL holds one; from a file, it need not be encoded")
]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=3600, extra={"unit": "seconds"})]


class SettingsError(Exception):
    """The environment does not say what the program needs: each variable that is wrong, never a secret's value."""


class DeclaredSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a program, which adds its fields in a subclass. A field `x` is read from KEELSON_X or KEELSON_X_FILE.

    What takes several fields to say is said by `__post_init__`, which raises ValueError with the variable's name.
    """

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as unset. Raises SettingsError with all that is wrong."""
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for field in msgspec.structs.fields(cls):
            try:
                _read(field, environ, values)
            except UnreadableError as error:
                wrong.append(str(error))
            except ValueError as error:
                wrong.append(f"{variable_of(field.name)}: {error}")
        if wrong:
            raise SettingsError("wrong settings: " + "; ".join(wrong))
        try:
            return cls(**values)
        except ValueError as error:
            raise SettingsError(f"wrong settings: {error}") from None

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={'***' if is_secret(field.type) else repr(getattr(self, field.name))}"
            for field in msgspec.structs.fields(self)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class DatabaseSettings(DeclaredSettings, frozen=True, kw_only=True):
    """What every program that works in the database is told of it."""

    database_url: WorkDatabase
    database_password: DatabasePassword = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "database_url", complete_url(self.database_url, self.database_password))


def complete_url(url: str, password: str) -> str:
    """Give a database's URL with the password that was given apart from it. Raises ValueError if it has one already."""
    if not password:
        return url
    if database.holds_password(url):
        raise ValueError(f"{variable_of('database_password')}: {variable_of('database_url')} holds a password too")
    return database.with_password(url, password)


def is_secret(type_: Any) -> bool:
    """Whether values of a field of this type are never shown."""
    return any(bool(extra.get("secret")) for extra in _extras(type_))


def _extras(type_: Any) -> list[dict[str, Any]]:
    return [each.extra for each in get_args(type_) if isinstance(each, Meta) and each.extra]


def unknown_in(environ: Mapping[str, str], settings: type[DeclaredSettings]) -> dict[str, str | None]:
    """Give the variables of ours that these settings do not know, each with the one that may be meant."""
    known = [variable_of(field.name) for field in msgspec.structs.fields(settings)]
    known += [name + FILE_SUFFIX for name in known]
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return {name: next(iter(get_close_matches(name, known, n=1, cutoff=0.85)), None) for name in unknown}


def _read(field: msgspec.structs.FieldInfo, environ: Mapping[str, str], values: dict[str, Any]) -> None:
    text = read_text(variable_of(field.name), environ)
    if text:
        values[field.name] = _convert(text, field.type)
    elif field.required:
        raise ValueError(f"is not set; expected {expected_of(field.type)}")


def _convert(text: str, type_: Any) -> Any:
    """Convert a value; what is wrong with it is told by what was expected, and never by the value."""
    try:
        value = msgspec.convert(text, type_, strict=False)
        for extra in _extras(type_):
            if "check" in extra:
                extra["check"](value)
    except ValueError:
        raise ValueError(f"expected {expected_of(type_)}") from None
    return value
