"""Make the stack's secrets at its first start: one folder for each container, of files that its user alone can read.

Nothing is printed. What is complete is never changed, so that a restart goes on with the same passwords and tokens;
what an interrupted start left is made anew, since no container starts before this has ended.
"""

import os
import secrets
import sys
from pathlib import Path

COMPLETE = "complete"

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
    ("command", SERVICE_UID): {
        "database_password": "command",
        "idempotency_secret": "idempotency",
        "operator_token": "operator",
    },
    ("projector", SERVICE_UID): {"database_password": "projector", "operator_token": "operator"},
    ("query", SERVICE_UID): {"database_password": "query", "operator_token": "operator"},
}


def make_secrets(folder: Path) -> None:
    """Fill the folder, unless it is complete; needs to be root, to give files away."""
    if (folder / COMPLETE).exists():
        return
    made = {name: secrets.token_urlsafe(32) for files in FILES.values() for name in files.values()}
    for (container, uid), files in FILES.items():
        place = folder / container
        place.mkdir(mode=0o755, exist_ok=True)
        for file, name in files.items():
            _write(place / file, made[name], uid)
    (folder / COMPLETE).touch()


def _write(file: Path, text: str, uid: int) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as opened:
        opened.write(text)
    os.chown(file, uid, uid)


if __name__ == "__main__":
    make_secrets(Path(sys.argv[1]))
