"""What the append promises of one group: atomic, ordered, checked, each decision by itself."""

from keelson.log.decision import Limit, Replayed
from support.database import Database
from support.decisions import PROJECT, an_app, decide, done
from support.log import append_group, assert_sound, connected, read_epoch

NAMES = f"app.name:{PROJECT}"


async def test_a_decision_answered_for_two_reasons_costs_no_other_decision(database: Database) -> None:
    """It was once counted twice, as replayed and as over its limit; the group then seemed to be settled."""
    async with connected(database.command_dsn) as connection:
        epoch = await read_epoch(connection)
        only_one = Limit(NAMES, 1, None)
        await append_group(connection, decide(epoch, an_app(), key="key", limits=[only_one]))
        again = decide(epoch, an_app(), key="key", limits=[only_one])
        other = decide(epoch, an_app(project_id="project_other"))
        outcomes = await append_group(connection, again, other)
        assert isinstance(outcomes[0], Replayed)
        assert outcomes[1] == done(3)
        assert (await assert_sound(connection))[-1].aggregate_id == other.events[0].aggregate_id
