"""Typed asynchronous client of the command and query APIs: the way in for the demo, agents and tests."""

from keelson.client.answers import Answer, BundleAnswer, CommandResult, EventRef, Response
from keelson.client.client import Client
from keelson.client.errors import ClientError, ProblemError, UnreachableError

__all__ = [
    "Answer",
    "BundleAnswer",
    "Client",
    "ClientError",
    "CommandResult",
    "EventRef",
    "ProblemError",
    "Response",
    "UnreachableError",
]
