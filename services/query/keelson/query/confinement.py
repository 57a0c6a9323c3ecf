"""What an actor may read: the one place through which every read goes.

Each endpoint is entered in `keelson.access.rights.READS`; the right is checked before its handler runs, and leaves the
request's `Reach`, without which nothing can be read from a view or the log. What an actor may not see answers as if it
did not exist; who may not read a collection at all is refused it.
"""

import msgspec
from starlette.requests import Request

from keelson.access import Grants
from keelson.access.rights import READS, ReadRight
from keelson.service.problems import Problem


class Reach(msgspec.Struct, frozen=True):
    """Whose things may be read: one organisation's, or, without one, everybody's."""

    org_id: str | None

    def covers(self, org_id: str | None) -> bool:
        """Whether something of this organisation may be read; what is of none is the operators' alone."""
        return self.org_id is None or org_id == self.org_id


EVERYTHING = Reach(None)


def right_at(path: str) -> ReadRight:
    """Give the right to read at a path. Raises KeyError for a path that the table does not know."""
    return READS[path]


def confine(request: Request, path: str, right: ReadRight) -> Reach:
    """Give how far the caller's reads reach at a path. Raises Problem `forbidden` or `not_found`."""
    grants: Grants = request.state.caller.grants
    if grants.operator or (right.node and grants.node_id is not None and grants.node_id == request.path_params["id"]):
        return EVERYTHING
    if right.scope is not None and grants.org_id is not None and grants.allows(right.scope):
        return Reach(grants.org_id)
    if "{" in path:
        raise Problem("not_found", "There is none with this id")
    raise Problem(
        "forbidden", f"Reading here needs the scope {right.scope}" if right.scope else "This is for operators"
    )
