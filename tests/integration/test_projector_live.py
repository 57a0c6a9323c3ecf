"""The projector following a log: woken, polling, and exact."""

from keelson.service.standing import read_standing
from support.database import Database
from support.projecting import assert_views_equal_fold, caught_up, connected, pooled, replica
from support.story import Story, insert


async def test_views_follow_the_log(database: Database) -> None:
    story = Story(seed=1, first=2)
    async with connected(database.owner_dsn) as owner, pooled(database.projector_dsn) as pool, replica(database):
        for _ in range(5):
            await insert(owner, story.tell(100))
            await caught_up(pool)

        await assert_views_equal_fold(pool)
        assert {item.holder is not None for item in (await read_standing(pool)).items} == {True}
