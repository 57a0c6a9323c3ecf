"""Make the stack's secrets at its first start: one folder for each container, of files that its user alone can read.

Nothing is printed. What is complete is never changed, so that a restart goes on with the same passwords and tokens;
what a newer version needs besides is added to it, and what it does not want is removed. What an interrupted start left
is made anew, since no container starts before this has ended.
"""

import base64
import os
import secrets
import sys
from pathlib import Path

from keelson.access.tokens import is_token, new_token

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
    ("scheduler-principal", SERVICE_UID): {"database_password": "command", "operator_token": "scheduler"},
    # It has no database: a credential of its own is all that it acts by.
    ("scheduler", SERVICE_UID): {"token": "scheduler"},
}
# What is a token of the API, and so has its form.
TOKENS = ("operator", "scheduler")


def make_secrets(folder: Path) -> None:
    """Bring the folder to what is wanted; needs to be root, to give files away."""
    wanted = {
        folder / container / file: (uid, name)
        for (container, uid), files in FILES.items()
        for file, name in files.items()
    }
    found = {file: file.read_text() for file in folder.glob("*/*")} if (folder / COMPLETE).exists() else {}
    texts = {wanted[file][1]: text for file, text in found.items() if file in wanted and _is_fit(wanted[file][1], text)}
    for file, (uid, name) in wanted.items():
        if found.get(file) != texts.setdefault(name, _make(name)):
            _write(file, texts[name], uid)
    for file in found.keys() - wanted.keys():
        file.unlink()
    (folder / COMPLETE).touch()


def _make(name: str) -> str:
    """Make a secret; the master key of secrets in the vault has a name, by which it is known when it is exchanged."""
    if name == "masters":
        return f"first:{base64.b64encode(secrets.token_bytes(32)).decode()}"
    return new_token() if name in TOKENS else secrets.token_urlsafe(32)


def _is_fit(name: str, text: str) -> bool:
    """Say whether what an earlier version made can still be used: a token of another form is nobody's."""
    return name not in TOKENS or is_token(text)


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
