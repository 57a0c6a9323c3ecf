"""Views that an older version of the code made: rebuilt before services start, since nobody reads the old ones here."""

from keelson.local.child import Child
from keelson.local.errors import LocalError
from keelson.local.once import run_once
from keelson.log.database import connect
from keelson.log.queries import load
from keelson.views import PROJECTIONS

_READ_VERSIONS = load(__file__, "read_versions")


async def read_outdated(owner_url: str) -> list[str]:
    """Give the projections whose version was raised since their views were made."""
    connection = await connect(owner_url, application_name="keelson-local")
    try:
        rows = await connection.fetch(_READ_VERSIONS)
    finally:
        await connection.close()
    return [name for name, version in rows if name in PROJECTIONS and version < PROJECTIONS[name].version]


async def rebuild(projector: Child, projection: str) -> None:
    """Rebuild a projection by the projector's own command. Raises LocalError; a rebuild that is cancelled is ended."""
    code = await run_once(projector.module, "rebuild", projection, environ=projector.environ, log=projector.log)
    if code:
        raise LocalError(f"{projection} could not be rebuilt; see {projector.log}")
