"""Entity tags (RFC 9110, 8.8.3 and 13.1.2): strong, made of a row's resource_version.

In another history of the log the same version may be something else, so a row that was changed after the log's first
epoch has the epoch of that change in its tag.
"""


def write_etag(resource_version: int, epoch: str | None, state: str | None = None) -> str:
    """Give the tag of a version, in an epoch (None: the first), and of what the row has beside the log, if anything."""
    version = f"{resource_version}" if epoch is None else f"{resource_version}.{epoch}"
    return f'"{version}"' if state is None else f'"{version}-{state}"'


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Say whether the client has this already. The comparison is weak, as the standard wants it for If-None-Match."""
    if if_none_match is None:
        return False
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or "*" in known
