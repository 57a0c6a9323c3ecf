"""What an operator should know of how the projections stand."""

from collections.abc import Iterator, Mapping

from keelson.projector.checkpoints import Checkpoint
from keelson.service.standing import ProjectionItem, Standing
from keelson.views import Projection


def checkpoint_of(item: ProjectionItem) -> Checkpoint:
    """Give the checkpoint's row alone."""
    return Checkpoint(
        version=item.version,
        position=item.checkpoint,
        state=item.state,
        error_position=item.error.position if item.error else None,
    )


def complaints(standing: Standing, projections: Mapping[str, Projection]) -> Iterator[str]:
    """Say what keeps the projections of this code from going on; nothing if all is well."""
    for name, projection in projections.items():
        item = standing.read_item(name)
        if item is None:
            yield f"{name} has not begun"
        elif item.version != projection.version:
            yield f"{name} needs rebuild: stored version {item.version}, code has {projection.version}"
        elif item.error is not None:
            yield f"{name} is {item.state} at {item.error.position} ({item.error.event_type}): {item.error.message}"
