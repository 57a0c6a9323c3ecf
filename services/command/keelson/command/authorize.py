"""Who may send a command: decided by the one table of rights, on folded states that join the decision's read set.

The aggregate that grants (the organisation, the principal, the node) is read by the decision itself, so that nothing
slips in after a revocation has committed, on whichever replica. A refusal of these is confirmed like every other, but
never answered from what an idempotency key keeps: authorisation is checked again on replay.
"""

from typing import Any

from keelson.access import Grants, Identity, grants_of
from keelson.access.grants import NOTHING
from keelson.access.rights import COMMANDS, Right
from keelson.access.scopes import COLLECTION_OF
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Denial, not_found
from keelson.command.registry import STATES
from keelson.command.state import Aggregate, State
from keelson.command.transaction import Transaction
from keelson.events.ids import read_aggregate_type


async def authorize(tx: Transaction, handler: Handler, command: Command) -> None:
    """Let a command through, with what its sender may in `tx.grants`; raises Denial, or Refusal `not_found`.

    What the sender may not see is not found; what it sees and may not act on so is forbidden.
    """
    tx.grants = await _grants(tx, tx.identity)
    right = COMMANDS.get(handler.name)
    if right is None:
        raise Denial("forbidden", f"nobody may send {handler.name}")
    named: str | None = getattr(command, right.on) if right.on is not None else None
    subject = None
    if named is not None:
        subject = await _find(tx, named)
        if subject is None or not tx.grants.sees(subject.ids):
            # No denial: whose a thing is never changes, so no answer was ever kept for who may not see it.
            raise not_found(_noun(named), named)
    if _allows(tx.grants, tx.identity, right, command, subject):
        return
    if named is not None and not _may_read(tx.grants, named):
        raise Denial("not_found", not_found(_noun(named), named).detail)
    raise Denial("forbidden", f"you may not send {handler.name}" + (f" for {named}" if named else ""))


async def _grants(tx: Transaction, identity: Identity) -> Grants:
    """Give what the sender may; raises Denial `unauthenticated` if its credential is not good (any more)."""
    holder = await _find(tx, identity.holder_id)
    access, ids = (holder.state.access, holder.ids) if holder is not None else (None, None)
    grants = grants_of(identity, access, ids, tx.now)
    if grants is None:
        tx.grants = NOTHING
        raise Denial("unauthenticated", "the credential is not good")
    return grants


async def _find(tx: Transaction, named: str) -> Aggregate[Any] | None:
    """Give the aggregate of an id, also a deleted one: whose it was still says who may hear that it is gone."""
    state_type: type[State] | None = STATES.get(read_aggregate_type(named) or "")
    return await tx.read(state_type, named) if state_type is not None else None


def _may_read(grants: Grants, named: str) -> bool:
    """Whether its sender can read what a command is about, which it sees: a principal may lack the scope."""
    collection = COLLECTION_OF.get(read_aggregate_type(named) or "")
    return grants.org_id is None or (collection is not None and grants.allows(f"{collection}:read"))


def _noun(named: str) -> str:
    state_type = STATES.get(read_aggregate_type(named) or "")
    return state_type.noun if state_type is not None else "thing"


def _allows(grants: Grants, identity: Identity, right: Right, command: Command, subject: Aggregate[Any] | None) -> bool:
    match right.who:
        case "enrollment":
            return identity.kind == "enrollment"
        case "node":
            return subject is not None and grants.node_id is not None and subject.ids.node_id == grants.node_id
        case "operator":
            return grants.operator
        case "scope":
            own = right.own is not None and grants.member_id is not None
            return (
                grants.operator
                or (subject is not None and grants.org_id is not None and grants.allows(*right.scopes))
                or (own and getattr(command, right.own or "") == grants.member_id)
            )
