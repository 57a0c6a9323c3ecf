"""The registry: which events exist, and how stored ones are decoded into the newest version."""

from collections.abc import Iterable
from types import ModuleType

import msgspec

from keelson.events import app, deploy, env, instance, node, org, platform, principal, project, release, route, secret
from keelson.events.base import Event

# One line per aggregate.
MODULES: tuple[ModuleType, ...] = (
    platform,
    org,
    principal,
    project,
    app,
    env,
    release,
    deploy,
    route,
    secret,
    node,
    instance,
)


class UnknownEventError(Exception):
    """An event of a type, or a version, that this code does not know: it was written by a newer one."""

    def __init__(self, event_type: str, version: int) -> None:
        super().__init__(f"unknown event {event_type} version {version}")
        self.event_type = event_type
        self.version = version


class RegistryError(Exception):
    """The declarations of events contradict each other; raised when the registry is built, never later."""


class Registry:
    """Every event class by type and version; versions of a type must be 1, 2, 3 … and all but the newest upcast."""

    def __init__(self, classes: Iterable[type[Event]]) -> None:
        self.classes: dict[tuple[str, int], type[Event]] = {}
        self.newest: dict[str, type[Event]] = {}
        for cls in sorted(classes, key=lambda each: (each.event_type, each.event_version)):
            self._add(cls)
        self._decoders = {key: msgspec.json.Decoder(cls) for key, cls in self.classes.items()}
        self._upcast = {key for key, cls in self.classes.items() if self.newest[key[0]] is not cls}
        for key in self._upcast:
            if self.classes[key].upcast is Event.upcast:
                raise RegistryError(f"{key[0]} version {key[1]} has no upcast, and a newer version exists")

    def _add(self, cls: type[Event]) -> None:
        event_type, version = cls.event_type, cls.event_version
        expected = self.newest[event_type].event_version + 1 if event_type in self.newest else 1
        if version != expected:
            raise RegistryError(f"{cls.__name__} declares {event_type} version {version}, expected {expected}")
        self.classes[event_type, version] = cls
        self.newest[event_type] = cls

    def decode(self, event_type: str, version: int, payload: str | bytes) -> Event:
        """Decode a stored payload and upcast it to the newest version.

        Raises UnknownEventError for what a newer writer wrote, msgspec.MsgspecError for a payload that is none such.
        """
        key = (event_type, version)
        decoder = self._decoders.get(key)
        if decoder is None:
            raise UnknownEventError(event_type, version)
        event: Event = decoder.decode(payload)
        if key in self._upcast:
            while event.event_version < self.newest[event_type].event_version:
                event = event.upcast()
        return event


def encode(event: Event) -> str:
    """Encode a payload: the very text that the log keeps. Fields stand in the order of their declaration."""
    return msgspec.json.encode(event).decode()


def events_of(module: ModuleType) -> list[type[Event]]:
    """Give the event classes that a module declares, in the order of their declaration."""
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Event) and each.__module__ == module.__name__
    ]


REGISTRY = Registry(cls for module in MODULES for cls in events_of(module))
