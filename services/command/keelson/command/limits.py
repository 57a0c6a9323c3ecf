"""Limits of a request's commands: each holds for the scope as its own command leaves it, and is held at the append.

The append knows what a scope holds after the whole request. What the commands after the one that set a limit change by
themselves comes off that, so a quota that a bundle raises counts for what follows it alone. What they let go of that
the log held before is not known here; it is to their credit.
"""

from itertools import accumulate
from typing import NamedTuple

from keelson.command.answers import Results
from keelson.command.transaction import SetLimit, Transaction
from keelson.events.base import Release
from keelson.log.decision import Limit, OverLimit


class _Own(NamedTuple):
    """What the request's own events have taken in a scope and hold."""

    held: int
    amount: int


def limits_of(tx: Transaction, results: Results) -> list[Limit]:
    """Give the limits for the scopes as they are after the whole request."""
    return list(dict.fromkeys(_in_the_end(each.limit, _since(tx, results, each)) for each in tx.limits))


def limit_that_refused(tx: Transaction, results: Results, over: OverLimit) -> SetLimit:
    """Find the limit of the first command that passed it; its refusal is told what the scope would have held."""
    for each in tx.limits:
        since = _since(tx, results, each)
        held, amount = over.held - since.held, over.amount - since.amount
        if each.limit.scope == over.scope and _is_over(each.limit, held, amount):
            is_of_keys = each.limit.held is not None and held > each.limit.held
            return each._replace(refusal=each.refusal.told(held if is_of_keys else amount))
    raise LookupError(f"nothing limits {over.scope} to less than {over}")


def _in_the_end(limit: Limit, since: _Own) -> Limit:
    return Limit(
        limit.scope,
        None if limit.held is None else limit.held + since.held,
        None if limit.amount is None else limit.amount + since.amount,
    )


def _since(tx: Transaction, results: Results, each: SetLimit) -> _Own:
    """Give how much more the request's own events hold in a limit's scope in the end than after its command."""
    ends = [*accumulate(count for _, count in results)]
    end, last = ends[each.command_index], len(tx.events)
    if end == last:
        return _Own(0, 0)
    then, finally_ = _own(tx, each.limit.scope, end), _own(tx, each.limit.scope, last)
    return _Own(finally_.held - then.held, finally_.amount - then.amount)


def _own(tx: Transaction, scope: str, events: int) -> _Own:
    """Fold what the first events take in a scope, and keep."""
    own: dict[str, tuple[str, int]] = {}
    for event in tx.events[:events]:
        for change in event.event.claims_of(event.ids):
            if change.scope != scope:
                continue
            if isinstance(change, Release):
                own = {key: claim for key, claim in own.items() if claim[0] != event.aggregate_id}
            else:
                own[change.key_of(event.aggregate_id)] = (event.aggregate_id, change.amount)
    return _Own(len(own), sum(amount for _, amount in own.values()))


def _is_over(limit: Limit, held: int, amount: int) -> bool:
    return (limit.held is not None and held > limit.held) or (limit.amount is not None and amount > limit.amount)
