"""What makes two requests under one key the same."""

import msgspec

from keelson.command.domain.env import ScaleEnv
from keelson.command.domain.org import RenameOrg
from keelson.command.handlers import Command, Handler
from keelson.command.registry import HANDLERS
from keelson.command.submission import Part, Submission, request_hash
from keelson.events import Actor
from keelson.log.decision import Context
from support.specs import ENV, NOW, OPERATOR, ORG

CONTEXT = Context(actor=Actor("system", "operator"), request_id="r")
RENAME = HANDLERS["org.rename"]


def hash_of(*parts: Part, context: Context = CONTEXT, secret: bytes = b"secret") -> bytes:
    asked = Submission(name="any", parts=parts, context=context, identity=OPERATOR, received_at=NOW, key="key")
    return request_hash(secret, asked)


def rename(name: str = "a", if_match: int | None = None) -> Part:
    return Part(RENAME, RenameOrg(org_id=ORG, name=name), if_match)


def test_a_request_is_its_commands_their_fields_and_if_match() -> None:
    same = hash_of(rename())
    assert same == hash_of(rename())
    others = [
        hash_of(rename("b")),
        hash_of(rename(if_match=1)),
        hash_of(rename(), rename()),
        hash_of(msgspec.structs.replace(rename(), handler=HANDLERS["project.rename"])),
        hash_of(rename(), secret=b"another"),
    ]
    assert same not in others
    assert len(set(others)) == len(others)


def test_who_why_and_when_are_no_part_of_it() -> None:
    context = Context(actor=Actor("user", "u"), request_id="other", reason="why", correlation_id="c")
    assert hash_of(rename()) == hash_of(rename(), context=context)


def test_the_order_of_keys_does_not_matter() -> None:
    scale = HANDLERS["env.scale"]
    one = Part(scale, ScaleEnv(env_id=ENV, replicas={"a": 1, "b": 2}), None)
    other = Part(scale, ScaleEnv(env_id=ENV, replicas={"b": 2, "a": 1}), None)
    assert hash_of(one) == hash_of(other)


class Before(Command, frozen=True, kw_only=True):
    """A command as it was."""

    name: str


class After(Command, frozen=True, kw_only=True):
    """The same command with a field that was added since."""

    name: str
    colour: str = "grey"
    tags: list[str] = []


def test_a_field_that_was_added_since_does_not_make_it_another_request() -> None:
    def part(type_: type[Command], **data: object) -> Part:
        handler = Handler(name="thing.create", command=type_, handle=RENAME.handle, result=RENAME.result)
        return Part(handler, msgspec.convert(data, type_), None)

    assert hash_of(part(Before, name="x")) == hash_of(part(After, name="x"))
    assert hash_of(part(Before, name="x")) != hash_of(part(After, name="x", colour="red"))
