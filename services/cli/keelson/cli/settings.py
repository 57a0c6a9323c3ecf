"""What the command line is told by the environment."""

from keelson.settings import DatabaseSettings, OperatorToken


class CliSettings(DatabaseSettings, frozen=True, kw_only=True):
    """The database, and the role to work as: the log's owner, or what a command's help names."""

    operator_token: OperatorToken = ""
