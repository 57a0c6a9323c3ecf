"""Settings from the environment: one struct per program, read once, all that is wrong reported at once.

msgspec reads them, as it reads everything else: no second validation library, and constraints are written as they are
for commands and events.
"""

from keelson.settings.database import holds_password, with_password
from keelson.settings.declared import (
    DatabasePassword,
    DatabaseSettings,
    DatabaseUrl,
    DeclaredSettings,
    OperatorToken,
    Port,
    Seconds,
    Secret,
    SettingsError,
    Token,
    WorkDatabase,
    complete_url,
    is_secret,
    unknown_in,
)
from keelson.settings.environment import variable_of
from keelson.settings.words import expected_of

__all__ = (
    "DatabasePassword",
    "DatabaseSettings",
    "DatabaseUrl",
    "DeclaredSettings",
    "OperatorToken",
    "Port",
    "Seconds",
    "Secret",
    "SettingsError",
    "Token",
    "WorkDatabase",
    "complete_url",
    "expected_of",
    "holds_password",
    "is_secret",
    "unknown_in",
    "variable_of",
    "with_password",
)
