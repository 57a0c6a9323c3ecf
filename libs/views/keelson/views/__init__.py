"""Projections: declared tables and pure functions from event to row changes. No I/O and no clock."""

from keelson.views.activity import ACTIVITY
from keelson.views.platform import PLATFORM
from keelson.views.projection import Projection
from keelson.views.table import DerivedView, Relation, Table
from keelson.views.tenancy import TENANCY

# One line per projection.
PROJECTIONS: dict[str, Projection] = {
    "tenancy": TENANCY,
    "platform": PLATFORM,
    "activity": ACTIVITY,
}


def table_named(name: str) -> tuple[Projection, Table]:
    """Give a table by its name, with the projection that owns it. Raises KeyError if there is none."""
    for projection in PROJECTIONS.values():
        for table in projection.tables:
            if table.name == name:
                return projection, table
    raise KeyError(name)


def derived_named(name: str) -> tuple[Projection, DerivedView]:
    """Give a derived view by its name, with the projection that owns it. Raises KeyError if there is none."""
    for projection in PROJECTIONS.values():
        for view in projection.derived:
            if view.name == name:
                return projection, view
    raise KeyError(name)


__all__ = ["PROJECTIONS", "DerivedView", "Projection", "Relation", "Table", "derived_named", "table_named"]
