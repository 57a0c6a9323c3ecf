"""Make the stack's secrets at its first start: one folder for each container, of files that its user alone can read.

Nothing is printed. What is complete is never changed, so that a restart goes on with the same passwords and tokens;
what an interrupted start left is made anew, since no container starts before this has ended. What an older version made
is kept, but for what has another form by now, and containers that are new get theirs.
"""

import base64
import os
import secrets
import sys
from pathlib import Path

from keelson.access.tokens import is_token, new_token

# What says that all is there: of this version, and of the one before.
COMPLETE, BEFORE = "complete-2", "complete"

# The users of the containers, as the images name them by number.
SERVICE_UID, POSTGRES_UID = 10001, 999

# Each container's files, by which secret they hold: a service knows its own role's password and no other's.
FILES: dict[tuple[str, int], dict[str, str]] = {
    ("postgres", POSTGRES_UID): {"superuser_password": "superuser", "owner_password": "owner"},
    ("migrate", SERVICE_UID): {
        "owner_password": "owner",
        "keelson_command": "command",
        "keelson_projector": "projector",
        "keelson_query": "query",
    },
    ("bootstrap", SERVICE_UID): {"database_password": "command", "operator_token": "operator"},
    ("command", SERVICE_UID): {
        "database_password": "command",
        "idempotency_secret": "idempotency",
        "secret_keys": "masters",
        "digest_key": "digests",
    },
    # It may not read who holds which credential: it knows the operator by the token itself.
    ("projector", SERVICE_UID): {"database_password": "projector", "operator_token": "operator"},
    ("query", SERVICE_UID): {"database_password": "query"},
}


def make_secrets(folder: Path) -> None:
    """Fill the folder, unless it is complete; needs to be root, to give files away."""
    if (folder / COMPLETE).exists():
        return
    kept = _read(folder) if (folder / BEFORE).exists() else {}
    made = {name: kept.get(name) or _make(name) for files in FILES.values() for name in files.values()}
    if not is_token(made["operator"]):
        made["operator"] = new_token()
    for (container, uid), files in FILES.items():
        place = folder / container
        place.mkdir(mode=0o755, exist_ok=True)
        for file in place.iterdir():
            file.unlink()
        for file_name, name in files.items():
            _write(place / file_name, made[name], uid)
    (folder / COMPLETE).touch()


def _make(name: str) -> str:
    """Make a secret; the master key of secrets in the vault has a name, by which it is known when it is exchanged."""
    if name == "masters":
        return f"first:{base64.b64encode(secrets.token_bytes(32)).decode()}"
    return new_token() if name == "operator" else secrets.token_urlsafe(32)


def _read(folder: Path) -> dict[str, str]:
    """Give what an older version made."""
    places = {
        name: folder / container / file for (container, _), files in FILES.items() for file, name in files.items()
    }
    return {name: place.read_text() for name, place in places.items() if place.exists()}


def _write(file: Path, text: str, uid: int) -> None:
    """Write a file, which is there whole or not at all."""
    file.parent.mkdir(mode=0o755, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as opened:
        opened.write(text)
    part.replace(file)
    os.chown(file, uid, uid)


if __name__ == "__main__":
    make_secrets(Path(sys.argv[1]))
