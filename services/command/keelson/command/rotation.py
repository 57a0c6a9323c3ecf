"""Rotation: the master keys of secrets are exchanged, in small steps, beside services that go on.

What was wrapped anew is committed with its step, so that a rotation may be killed and repeated. Services that know both
keys open a version before and after. New versions are sealed by the first of their keys: it must be the new one on all
of them before the rotation, else those that they seal meanwhile are left under the old one, and are counted.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from keelson.command.sealing import Sealer, SealingError
from keelson.log.database import Database
from keelson.log.queries import load

# So many in one transaction: a sealed version may have half a MiB.
BATCH = 20
# A row that an erasure holds is passed by; once more over all of them finds it free, or gone.
PASSES = 2

_READ_OTHER_KEYS = load(__file__, "read_other_keys")
_REWRAP_SECRETS = load(__file__, "rewrap_secrets")
_COUNT_KEYS = load(__file__, "count_keys")


class _Version(NamedTuple):
    secret_id: str
    version: int
    key_id: str
    sealed: bytes


class Rotated(NamedTuple):
    """How many versions were wrapped anew, what cannot be, and how many versions are under which key afterwards."""

    rewrapped: int
    faults: list[str]
    under: Mapping[str, int]


async def rotate(db: Database, sealer: Sealer, *, batch: int = BATCH) -> Rotated:
    """Wrap every version anew that is not under the sealer's first key; a transaction per batch.

    What does not open, since its key is not known or it is not what was sealed, is left as it is and named.
    """
    rewrapped = 0
    faults: dict[str, None] = {}
    for _ in range(PASSES):
        after = ("", 0)
        while page := [_Version(*row) for row in await db.fetch(_READ_OTHER_KEYS, sealer.key_id, *after, batch)]:
            columns = list(zip(*_rewrap(sealer, page, faults), strict=True))
            rewrapped += await db.fetchval(_REWRAP_SECRETS, *columns) if columns else 0
            after = (page[-1].secret_id, page[-1].version)
    return Rotated(rewrapped, list(faults), dict(await db.fetch(_COUNT_KEYS)))


def _rewrap(
    sealer: Sealer, page: list[_Version], faults: dict[str, None]
) -> Iterator[tuple[str, int, str, str, bytes]]:
    """Give what replaces each version, with its place and the key that it is under; add those that do not open."""
    for each in page:
        try:
            yield (each.secret_id, each.version, each.key_id, *sealer.rewrap(*each))
        except SealingError as error:
            faults[str(error)] = None
