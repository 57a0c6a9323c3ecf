"""Typed asynchronous client of the command and query APIs: the way in for the demo, agents and tests."""

from keelson.client.answers import Answer, CommandResult, EventRef, Response
from keelson.client.bundle import BundleAnswer
from keelson.client.client import Client
from keelson.client.command import Command, Guarded, Options
from keelson.client.errors import ClientError, ProblemError, UnreachableError, UnsendableError
from keelson.client.following import StreamTimes
from keelson.client.listing import Listing, Page, Rows
from keelson.client.stream import Bookmark, Change, Confirmed, Cursor, Desired, Resync

__all__ = [
    "Answer",
    "Bookmark",
    "BundleAnswer",
    "Change",
    "Client",
    "ClientError",
    "Command",
    "CommandResult",
    "Confirmed",
    "Cursor",
    "Desired",
    "EventRef",
    "Guarded",
    "Listing",
    "Options",
    "Page",
    "ProblemError",
    "Response",
    "Resync",
    "Rows",
    "StreamTimes",
    "UnreachableError",
    "UnsendableError",
]
