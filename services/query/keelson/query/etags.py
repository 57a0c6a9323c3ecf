"""Entity tags (RFC 9110, 8.8.3 and 13.1.2): strong, made of a row's resource_version."""


def write_etag(resource_version: int, state: str | None = None) -> str:
    """Give the tag of a version, and of the state of what the row has beside the log, if it has any."""
    return f'"{resource_version}"' if state is None else f'"{resource_version}-{state}"'


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Say whether the client has this already. The comparison is weak, as the standard wants it for If-None-Match."""
    if if_none_match is None:
        return False
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or "*" in known
