"""The contract: the envelope, every aggregate's events, their registry and upcasting.

Nothing here does I/O or knows PostgreSQL, HTTP or a clock. All services import it; it imports only msgspec.
"""

from keelson.events.base import ClaimChange, Event, Release, Take
from keelson.events.envelope import Actor, ActorType, Envelope, Ids
from keelson.events.registry import REGISTRY, Registry, UnknownEventError

__all__ = [
    "REGISTRY",
    "Actor",
    "ActorType",
    "ClaimChange",
    "Envelope",
    "Event",
    "Ids",
    "Registry",
    "Release",
    "Take",
    "UnknownEventError",
]
