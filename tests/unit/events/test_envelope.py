"""The envelope holds everything that the log keeps of an event, and loses nothing on the way."""

from datetime import UTC, datetime

import msgspec
import pytest

from keelson.events import Envelope, Ids
from keelson.events.ids import AggregateId, Position, Seq

FULL = Envelope(
    position=Position(9),
    aggregate_id=AggregateId("env_01m83v2m7wf9qa3v1c97p1tzd0"),
    seq=Seq(2),
    type="env.scaled",
    version=1,
    org_id="org_01m83tz5rff7vtyybg4s0p9p1s",
    project_id="project_01m83v0ajyepyarc27yz5s3khq",
    app_id="app_01m83v1fddfwaaypkzhbbptgsg",
    env_id="env_01m83v2m7wf9qa3v1c97p1tzd0",
    actor_type="user",
    actor_id="member_01m83v1fddfwaaypkzhbbptgsg",
    reason="the sale begins, Grüße",
    request_id="req-1",
    correlation_id="sale-3",
    causation_id=Position(4),
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    command_id="command_01m83ve4gje2bbs1zxf9qdf3tx",
    command_end=True,
    recorded_at=datetime(2026, 11, 23, 9, 22, 47, 954001, tzinfo=UTC),
    payload='{"replicas":{"web":6}}',
)

BARE = Envelope(
    position=Position(1),
    aggregate_id=AggregateId("platform_00000000000000000000000000"),
    seq=Seq(1),
    type="platform.epoch_began",
    version=1,
    actor_type="system",
    actor_id="migrate",
    request_id="req-0",
    command_id="command_01m83ve4gje2bbs1zxf9qdf3tx",
    command_end=True,
    recorded_at=datetime(2026, 11, 23, tzinfo=UTC),
    payload="{}",
)


@pytest.mark.parametrize("envelope", [FULL, BARE], ids=["full", "bare"])
def test_an_envelope_survives_the_way_through_json(envelope: Envelope) -> None:
    assert msgspec.json.decode(msgspec.json.encode(envelope), type=Envelope) == envelope


@pytest.mark.parametrize("envelope", [FULL, BARE], ids=["full", "bare"])
def test_an_envelope_survives_the_way_through_a_row(envelope: Envelope) -> None:
    assert msgspec.convert(msgspec.structs.asdict(envelope), Envelope) == envelope


def test_the_aggregates_type_is_the_prefix_of_its_id() -> None:
    assert (FULL.aggregate_type, BARE.aggregate_type) == ("env", "platform")


def test_the_ids_are_those_that_apply() -> None:
    assert FULL.ids == Ids(
        org_id=FULL.org_id, project_id=FULL.project_id, app_id=FULL.app_id, env_id=FULL.env_id, node_id=None
    )
    assert BARE.ids == Ids()
