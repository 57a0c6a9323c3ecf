"""The first operator: a principal of the platform and its credential, made where no service could be asked for them."""

import argparse
import asyncio
import hashlib
import re
import secrets
from typing import NamedTuple

from typeid import TypeID

from keelson.access.scopes import OPERATOR
from keelson.access.tokens import hash_token, is_token, new_token
from keelson.cli.settings import CliSettings
from keelson.events import Actor, Ids
from keelson.events.base import Take
from keelson.events.ids import AggregateId, Seq
from keelson.events.principal import PrincipalCreated, PrincipalCredentialIssued, names_in
from keelson.log.append import Appender
from keelson.log.confirm import read_scope
from keelson.log.database import Connection
from keelson.log.decision import (
    Context,
    CredentialRow,
    Decision,
    Done,
    IdempotencyKey,
    KeyTaken,
    NewEvent,
    ReadSet,
    TakenKey,
)
from keelson.log.queries import load
from keelson.log.read import read_head

BOOTSTRAP = Actor("system", "bootstrap")

_TIMEOUT_S = 30.0
# As the command service has it.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMES = names_in(None)
_IS_CREDENTIAL = load(__file__, "is_credential")


class BootstrapError(Exception):
    """The operator that was asked for cannot be made."""


class OperatorExistsError(Exception):
    """There is an operator already, and its token is another."""


class Made(NamedTuple):
    """The principal that was made and the token that it acts by."""

    principal_id: str
    token: str


async def bootstrap(connection: Connection, settings: CliSettings, given: argparse.Namespace) -> Made | None:
    """Make an operator by one append, as the log's owner or keelson_command; None if its given token is good already.

    Two at once are two appends on one scope of names: the second is decided again, and sees the first. Raises
    BootstrapError, OperatorExistsError, and AppendUnavailableError when it is not known in time what became of it: with
    the same token it may be run again.
    """
    token = settings.operator_token or new_token()
    if not is_token(token):
        raise BootstrapError("KEELSON_OPERATOR_TOKEN is no token: kls_, 40 hexadecimal digits, and their checksum")
    decision = await _decide(connection, token, given)
    if decision is None:
        return None
    appender = Appender(settings.database_url, application_name="keelson-cli")
    writing = asyncio.create_task(appender.run())
    try:
        while decision is not None:
            outcome = await appender.append(decision, _TIMEOUT_S)
            if isinstance(outcome, Done):
                return Made(decision.events[0].aggregate_id, token)
            if isinstance(outcome, KeyTaken):
                raise BootstrapError(f"a principal of the platform has the name {given.name}: choose another by --name")
            decision = await _decide(connection, token, given)
        return None
    finally:
        writing.cancel()
        await asyncio.wait([writing])


async def _decide(connection: Connection, token: str, given: argparse.Namespace) -> Decision | None:
    """Decide on the platform's principals as they are; None if the token is good already.

    Raises OperatorExistsError if there are some and another is not wanted.
    """
    if await connection.fetchval(_IS_CREDENTIAL, hash_token(token)):
        return None
    names = await read_scope(connection, _NAMES)
    if names.held and not given.another:
        raise OperatorExistsError("the platform has an operator already: ask with its credential, or make --another")
    principal_id = AggregateId(str(TypeID(prefix="principal")))
    credential_id, command_id = (str(TypeID(prefix=prefix)) for prefix in ("credential", "command"))
    created = PrincipalCreated(name=given.name, scopes=(OPERATOR,))
    issued = PrincipalCredentialIssued(credential_id=credential_id)
    return Decision(
        epoch=(await read_head(connection)).epoch,
        command_id=command_id,
        key=IdempotencyKey(BOOTSTRAP.type, BOOTSTRAP.id, "keelson.bootstrap", command_id),
        request_hash=hashlib.sha256(command_id.encode()).digest(),
        context=Context(actor=BOOTSTRAP, request_id=secrets.token_hex(16), reason="keelson bootstrap"),
        reads=ReadSet(aggregates={principal_id: Seq(0)}, scopes={_NAMES: names.version}),
        answer="{}",
        events=[NewEvent.of(principal_id, Seq(seq), Ids(), event) for seq, event in enumerate((created, issued), 1)],
        taken=[
            TakenKey(change.scope, change.key_of(principal_id), principal_id, change.amount)
            for change in created.claims_of(Ids())
            if isinstance(change, Take)
        ],
        credentials=[CredentialRow(credential_id, hash_token(token), "principal", principal_id, principal_id)],
    )


def read_name(text: str) -> str:
    """Read a principal's name from the command line; raises ArgumentTypeError for what no principal may be called."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("a name is lower-case letters, digits and dashes, 1 to 63 of them")
    return text
