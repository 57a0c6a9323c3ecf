"""Who may do what: what credentials are, what roles and scopes mean, and the one table of rights.

Pure but for the making of tokens: what an actor may is folded from the events of the aggregate that grants it (the
organisation, the principal, the node), so that commands can hold that aggregate in their read sets and reads can ask
the log how old their knowledge is.
"""

from keelson.access.grants import Grants, Identity, expiry_of, grants_of
from keelson.access.holders import NodeAccess, OrgAccess, PrincipalAccess

__all__ = ["Grants", "Identity", "NodeAccess", "OrgAccess", "PrincipalAccess", "expiry_of", "grants_of"]
