"""URLs of databases: refused where they would be misread, and given a password that comes from elsewhere."""

from urllib.parse import parse_qs, quote, urlsplit

EXPECTED = "a URL postgresql://ROLE@HOST:PORT/DATABASE, special characters of a password percent-encoded"


def check_url(url: str) -> None:
    """Raise ValueError, silent about the URL, for what asyncpg would refuse aloud or take apart at the wrong place.

    A password with a bare `/`, `#` or `@` ends up in the host, the port or the database, and from there in a log.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres") or parts.fragment or url.count("@") > 1 or "@" in parts.path:
        raise ValueError
    for host in parts.netloc.rpartition("@")[2].split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdecimal()):
            raise ValueError
    if parts.query:
        parse_qs(parts.query, strict_parsing=True)


def holds_password(url: str) -> bool:
    """Whether a URL names its role's password."""
    parts = urlsplit(url)
    return ":" in parts.netloc.rpartition("@")[0] or "password" in parse_qs(parts.query)


def with_password(url: str, password: str) -> str:
    """Put a password into a URL that holds none.

    As a parameter, since the role may be one too (`postgresql:///keelson?host=/run/postgresql&user=keelson`).
    """
    parts = urlsplit(url)
    given = f"password={quote(password, safe='')}"
    return parts._replace(query=f"{parts.query}&{given}" if parts.query else given).geturl()
