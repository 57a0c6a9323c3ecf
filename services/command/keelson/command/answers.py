"""Answers: each command of a request gets its result and its own events."""

from itertools import accumulate
from typing import Any

import msgspec

from keelson.command.fields import once_only
from keelson.command.submission import Answer, EventReference, PartAnswer, StoredPart
from keelson.command.transaction import Transaction
from keelson.events.base import Take
from keelson.events.ids import Position
from keelson.log.decision import NewEvent, Replayed
from keelson.log.read import Page

# The result of each command, and how many of the events, in order, are its.
Results = list[tuple[Any, int]]


def answer_appended(
    tx: Transaction, results: Results, epoch: str, first: Position | None, position: Position
) -> Answer:
    """Answer what was appended from `first` to `position`, or nothing, confirmed at `position`."""
    start = first or 0
    events = [_reference(event, start + index) for index, event in enumerate(tx.events)]
    return Answer(epoch, position, _divide(results, events))


def answer_unchanged(results: Results, epoch: str, position: Position) -> Answer:
    """Answer that nothing had to change, as of `position`."""
    return Answer(epoch, position, _divide(results, []))


def keep_results(results: Results) -> str:
    """Encode what of an answer is kept under its key; its positions are kept beside, its events are in the log.

    What is shown once (a token, a secret's values) is null in it, and so in every replay.
    """
    return msgspec.json.encode([StoredPart(_without_once_only(result), events) for result, events in results]).decode()


def answer_again(replayed: Replayed, epoch: str, page: Page | None) -> Answer:
    """Answer as it was answered first; `page` holds its events, if it had any."""
    events = [
        EventReference(each.position, each.type, each.version, each.aggregate_id, each.seq)
        for each in (page.envelopes if page else ())
    ]
    stored = msgspec.json.decode(replayed.answer, type=list[StoredPart])
    return Answer(epoch, replayed.position, _divide([(part.result, part.events) for part in stored], events))


def command_that_took(tx: Transaction, results: Results, scope: str, key: str) -> int:
    """Find the command of a request whose event took a claim's key first: that one was refused."""
    takers = (
        index
        for index, event in enumerate(tx.events)
        for change in event.event.claims_of(event.ids)
        if isinstance(change, Take) and (change.scope, change.key_of(event.aggregate_id)) == (scope, key)
    )
    taker = min(takers)
    return next(index for index, end in enumerate(accumulate(count for _, count in results)) if taker < end)


def _without_once_only(result: msgspec.Struct) -> msgspec.Struct:
    names = once_only(type(result))
    return msgspec.structs.replace(result, **dict.fromkeys(names)) if names else result


def _reference(event: NewEvent, position: int) -> EventReference:
    kind = event.event
    return EventReference(Position(position), kind.event_type, kind.event_version, event.aggregate_id, event.seq)


def _divide(results: Results, events: list[EventReference]) -> list[PartAnswer]:
    ends = accumulate(count for _, count in results)
    return [
        PartAnswer(changed=count > 0, result=result, events=events[end - count : end])
        for (result, count), end in zip(results, ends, strict=True)
    ]
