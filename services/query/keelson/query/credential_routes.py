"""The endpoints of credentials: which ones a member or a principal has had. No token is known, and no hash is shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from keelson.log.database import Database
from keelson.log.queries import load
from keelson.query.endpoints import Endpoint, read_query, reflecting
from keelson.query.parameters import PageParameters, ViewHeaders, write_key_cursor
from keelson.query.reads import Row, View
from keelson.query.view_routes import PROBLEMS, ViewPage, after_key, key_of, no_such_row
from keelson.service.json import JsonResponse
from keelson.service.openapi import Operation
from keelson.views import table_named

_READ_LAST_USES = load(__file__, "read_last_uses")


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential: from when until when it is good, and when it was used last, to about a minute.

    `revoked_at` is also when the membership ended, or the principal was deleted, and all credentials with it.
    """

    credential_id: str
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class CredentialParameters(PageParameters, frozen=True, kw_only=True):
    """What a page of credentials takes."""


def credential_endpoints() -> list[Endpoint]:
    """Give the endpoints of the credentials of members and of principals."""
    return [list_credentials(View(*table_named(holders))) for holders in ("members", "principals")]


def list_credentials(holders: View) -> Endpoint:
    """Give the endpoint of a holder's credentials, the older first: their ids begin with their time."""
    view = View(*table_named("credentials"))

    async def handle(request: Request) -> Response:
        state = request.app.state
        parameters = read_query(request, CredentialParameters)
        after = after_key(parameters.cursor)
        floor = await state.freshness.await_view(request, parameters, view.projection)
        key, reach = key_of(request), request.state.reach
        page = await view.read_page(state.pool, {"holder_id": key}, reach=reach, after=after, limit=parameters.limit)
        state.freshness.check(floor, view.projection, page.checkpoint, page.epoch)
        headers = reflecting(page.checkpoint) | floor.headers
        # A holder never stops having existed, so a second snapshot can only know more of it.
        holder = (await state.rows.read(holders, key, reach=reach)).rows.get(key)
        if holder is None:
            raise no_such_row(headers)
        answer: ViewPage[Any] = ViewPage(
            items=await _completed(state.pool, page.rows, holder),
            next=write_key_cursor(page.rows[-1]["credential_id"]) if page.more else None,
            position=page.checkpoint,
        )
        return JsonResponse(answer, headers=headers)

    operation = Operation(
        method="GET",
        path=f"/v1/{holders.name}/{{id}}/credentials",
        summary=f"The credentials of one of the {holders.name}, the older first",
        parameters=CredentialParameters,
        headers=ViewHeaders,
        response=ViewPage[Credential],
        gives=("Keelson-Position",),
        may_give=("Preference-Applied",),
        problems=(*PROBLEMS, "not_found", "bad_cursor"),
        tags=(holders.name,),
    )
    return Endpoint(operation, handle)


async def _completed(db: Database, rows: Sequence[Row], holder: Row) -> list[Credential]:
    """Give credentials with when they were used last, ended no later than their holder."""
    ids = [row["credential_id"] for row in rows]
    uses = {record["credential_id"]: record["used_at"] for record in await db.fetch(_READ_LAST_USES, ids)}
    return [
        Credential(
            credential_id=row["credential_id"],
            issued_at=row["issued_at"],
            expires_at=row["expires_at"],
            revoked_at=row["revoked_at"] or holder["deleted_at"],
            last_used_at=uses.get(row["credential_id"]),
        )
        for row in rows
    ]
