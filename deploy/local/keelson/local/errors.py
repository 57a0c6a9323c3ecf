"""What can keep a stack from running, told to whoever typed the command."""


class LocalError(Exception):
    """The command cannot go on; the message says why and what to do. Shown without a traceback."""
