"""Replays a made-up history and prints digests of all rows: run in a process of its own, under another hash seed."""

import hashlib
import sys
from collections.abc import Sequence

from keelson.events import REGISTRY, Envelope
from keelson.projector.batch import Batch
from keelson.projector.folding import fold_batch
from keelson.views import PROJECTIONS, Projection
from keelson.views.memory import Memory
from support.projecting import rows_of
from support.story import Story


def digest_of(projection: Projection, envelopes: Sequence[Envelope]) -> str:
    """Digest what a projection makes of a history, by pages and event by event."""
    digest = hashlib.sha256()
    memory = Memory(projection)
    batch = Batch(0, envelopes, len(envelopes), REGISTRY, epoch="")
    for index, envelope in enumerate(envelopes):
        memory.apply(envelope, batch.event(index))
    digest.update(repr(rows_of(memory)).encode())
    for fold in fold_batch(projection, batch, frozenset()).fold.tables.values():
        digest.update(repr([fold.appended, fold.puts, sorted(fold.prefixes)]).encode())
    return digest.hexdigest()


def main(seed: int) -> None:
    """Print a line per projection."""
    told = Story(seed).tell(300)
    for name, projection in PROJECTIONS.items():
        sys.stdout.write(f"{name} {digest_of(projection, told)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
