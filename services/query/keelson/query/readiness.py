"""Whether the views that this code reads are there, in the version that it knows."""

from collections.abc import Mapping
from typing import Any

from keelson.log.database import Database
from keelson.log.queries import load
from keelson.service.health import DATABASE_CHECKS, Check
from keelson.service.lifecycle import NotReadyError
from keelson.views import PROJECTIONS

_READ_UNBUILT = load(__file__, "read_unbuilt")
_READ_VERSIONS = load(__file__, "read_versions")


async def check_views(state: Any) -> None:
    """Check the views of `state.pool`; raises NotReadyError with the first that is missing or of another version."""
    await require_views(state.pool)


async def require_views(db: Database) -> None:
    """Raise NotReadyError unless every view is there in this code's version. One that is stopped still serves reads."""
    versions = {row["projection"]: row["version"] for row in await db.fetch(_READ_VERSIONS)}
    for projection in PROJECTIONS.values():
        stored = versions.get(projection.name)
        if stored is None:
            raise NotReadyError(f"the projection {projection.name} has not been built yet")
        if stored != projection.version:
            raise NotReadyError(
                f"the projection {projection.name} is built in version {stored}, "
                f"and this service reads version {projection.version}"
            )
    names = [relation.name for projection in PROJECTIONS.values() for relation in projection.relations]
    if unbuilt := [row["name"] for row in await db.fetch(_READ_UNBUILT, names)]:
        raise NotReadyError(f"views are missing: {', '.join(unbuilt)}")


CHECKS: Mapping[str, Check] = {**DATABASE_CHECKS, "views": check_views}
