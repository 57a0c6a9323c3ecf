"""Who members are: e-mail and name, joined from the vault when a member is read, and kept in no view (DESIGN.md, 9)."""

import hashlib
from collections.abc import Sequence

from keelson.access import Grants
from keelson.log.database import Database
from keelson.log.queries import load
from keelson.query.reads import Row
from keelson.views.tenancy import MemberRow

_READ_PEOPLE = load(__file__, "read_people")


class Member(MemberRow, frozen=True, kw_only=True):
    """A member with who it is: null where the reader is not told, and where the person was erased."""

    email: str | None
    name: str | None


async def with_people(db: Database, rows: Sequence[Row], grants: Grants) -> list[Row]:
    """Give rows of members with e-mail and name, as the vault has them now; one statement for those that are told.

    The vault has no positions: what was erased is gone at once, however old the rows are.
    """
    told = [row["person_id"] for row in rows if _is_told(row, grants)]
    people = {record["person_id"]: record for record in await db.fetch(_READ_PEOPLE, told)} if told else {}
    return [_joined(row, people.get(row["person_id"]) if _is_told(row, grants) else None) for row in rows]


def _is_told(row: Row, grants: Grants) -> bool:
    """Say whether the reader is told who a member is, and the one place that does: who may change members, and oneself.

    Of another person's other memberships nobody learns by this: a row is told by its own organisation's grants.
    """
    return grants.sees_emails or (grants.member_id is not None and row["id"] == grants.member_id)


def _joined(row: Row, person: Row | None) -> Row:
    email, name = (person["email"], person["name"]) if person else (None, None)
    return {**row, "email": email, "name": name}


def state_of(row: Row) -> str:
    """Give what an entity tag of a member must tell apart beside its version: who it is changes without an event."""
    return hashlib.sha256(f"{row['email']}\n{row['name']}".encode()).hexdigest()[:8]
