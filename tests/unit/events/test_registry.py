"""Upcasting, shown on a made-up event, and what the registry refuses."""

from dataclasses import dataclass
from typing import ClassVar

import msgspec
import pytest

from keelson.events import Event, Registry, UnknownEventError
from keelson.events.registry import RegistryError, encode


class LampLitV1(Event, frozen=True):
    """The first thought: a colour by name."""

    event_type: ClassVar[str] = "lamp.lit"
    event_version: ClassVar[int] = 1

    colour: str

    def upcast(self) -> "LampLitV2":
        """Give the colour its number."""
        return LampLitV2(rgb={"red": 0xFF0000, "white": 0xFFFFFF}[self.colour])


class LampLitV2(Event, frozen=True):
    """A colour by number."""

    event_type: ClassVar[str] = "lamp.lit"
    event_version: ClassVar[int] = 2

    rgb: int

    def upcast(self) -> "LampLit":
        """All lamps were of full brightness then."""
        return LampLit(rgb=self.rgb, brightness=100)


class LampLit(Event, frozen=True):
    """A colour and a brightness in percent."""

    event_type: ClassVar[str] = "lamp.lit"
    event_version: ClassVar[int] = 3

    rgb: int
    brightness: int


class LampLitV2WithoutUpcast(Event, frozen=True):
    """The second version as somebody left it who added a third."""

    event_type: ClassVar[str] = "lamp.lit"
    event_version: ClassVar[int] = 2

    rgb: int


class CandleLitV1(Event, frozen=True):
    """Candles had one wick."""

    event_type: ClassVar[str] = "candle.lit"
    event_version: ClassVar[int] = 1

    def upcast(self) -> "CandleLit":
        """Say how many wicks."""
        return CandleLit(wicks=1)


class CandleLit(Event, frozen=True):
    """Candles have wicks."""

    event_type: ClassVar[str] = "candle.lit"
    event_version: ClassVar[int] = 2

    wicks: int


class LampPutOut(Event, frozen=True):
    """Another type, that has always had one version."""

    event_type: ClassVar[str] = "lamp.put_out"
    event_version: ClassVar[int] = 1


@dataclass(frozen=True)
class Upcast:
    """A stored payload and what readers see of it."""

    version: int
    payload: str
    seen: Event


def test_with_two_versions_the_older_is_seen_as_the_newer() -> None:
    registry = Registry([CandleLitV1, CandleLit])

    assert registry.decode("candle.lit", 1, "{}") == CandleLit(wicks=1)
    assert registry.decode("candle.lit", 2, '{"wicks":3}') == CandleLit(wicks=3)


@pytest.mark.parametrize(
    "example",
    [
        Upcast(1, '{"colour":"red"}', LampLit(rgb=0xFF0000, brightness=100)),
        Upcast(2, '{"rgb":255}', LampLit(rgb=255, brightness=100)),
        Upcast(3, '{"rgb":255,"brightness":40}', LampLit(rgb=255, brightness=40)),
    ],
    ids=lambda example: f"version {example.version}",
)
def test_with_three_versions_every_one_is_seen_as_the_newest(example: Upcast) -> None:
    registry = Registry([LampLit, LampLitV1, LampPutOut, LampLitV2])

    assert registry.decode("lamp.lit", example.version, example.payload) == example.seen


def test_the_newest_version_has_no_upcast() -> None:
    with pytest.raises(NotImplementedError, match=r"lamp\.lit version 3 is the newest"):
        LampLit(rgb=0, brightness=0).upcast()


@pytest.mark.parametrize(("event_type", "version"), [("lamp.lit", 4), ("lamp.lit", 0), ("lamp.stolen", 1)])
def test_what_a_newer_writer_wrote_is_named_not_guessed(event_type: str, version: int) -> None:
    registry = Registry([LampLitV1, LampLitV2, LampLit])

    with pytest.raises(UnknownEventError) as caught:
        registry.decode(event_type, version, '{"rgb":1,"brightness":1}')

    assert (caught.value.event_type, caught.value.version) == (event_type, version)


@pytest.mark.parametrize("payload", ["{}", '{"rgb":"red","brightness":1}', '{"rgb":1', "[]", ""])
def test_a_payload_that_is_none_such_is_refused(payload: str) -> None:
    registry = Registry([LampLitV1, LampLitV2, LampLit])

    with pytest.raises(msgspec.MsgspecError):
        registry.decode("lamp.lit", 3, payload)


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ([LampLitV2, LampLit], "version 2, expected 1"),
        ([LampLitV1, LampLit], "version 3, expected 2"),
        ([LampPutOut, LampPutOut], "version 1, expected 2"),
        ([LampLitV1, LampLitV2WithoutUpcast, LampLit], "version 2 has no upcast"),
    ],
    ids=["starts late", "has a gap", "is declared twice", "cannot be upcast"],
)
def test_declarations_that_contradict_each_other_are_refused(classes: list[type[Event]], complaint: str) -> None:
    with pytest.raises(RegistryError, match=complaint):
        Registry(classes)


def test_encoding_gives_fields_in_their_order_of_declaration() -> None:
    assert encode(LampLit(brightness=40, rgb=255)) == '{"rgb":255,"brightness":40}'
