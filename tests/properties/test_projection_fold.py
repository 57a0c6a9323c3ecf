"""Folding pages and applying event by event come to the same rows, and to the same poison event, however pages fall."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keelson.views.fold import Fold, TableFold
from keelson.views.memory import Memory
from keelson.views.projection import MissingRowError
from keelson.views.table import Key
from support.made_up import MADE_UP, PARTS, THINGS, Happened, history, random_changes

Tables = dict[str, dict[Key, list[Any]]]
# Rows, and the position that could not be applied.
Outcome = tuple[Tables, int | None]

ids = st.sampled_from("abc")
parts = st.sampled_from("xy")
sizes = st.integers(0, 99)
fields = st.fixed_dictionaries(
    {},
    optional={
        "label": st.none() | st.text(max_size=3),
        "size": sizes,
        "data": st.none() | st.dictionaries(parts, sizes),
    },
)
part_rows = st.lists(st.tuples(parts, sizes), max_size=2, unique_by=lambda row: row[0])
changes = st.one_of(
    st.builds(lambda id_, given: ["put", "things", {"id": id_, **given}], ids, fields),
    st.builds(lambda id_, given: ["patch", "things", [id_], given], ids, fields),
    st.builds(lambda id_: ["delete", "things", [id_]], ids),
    st.builds(lambda id_, part: ["put", "parts", {"thing": id_, "part": part}], ids, parts),
    st.builds(lambda id_, part, size: ["patch", "parts", [id_, part], {"size": size}], ids, parts, sizes),
    st.builds(lambda id_, part: ["delete", "parts", [id_, part]], ids, parts),
    st.builds(
        lambda id_, rows: [
            "replace",
            "parts",
            [id_],
            [{"thing": id_, "part": part, "size": size} for part, size in rows],
        ],
        ids,
        part_rows,
    ),
)
histories = st.lists(st.lists(changes, min_size=1, max_size=3), max_size=12)


def apply_one_by_one(events: Sequence[Happened]) -> Outcome:
    memory = Memory(MADE_UP)
    for envelope, event in events:
        before = rows_of(memory)
        try:
            memory.apply(envelope, event)
        except MissingRowError:
            return before, envelope.position
    return rows_of(memory), None


def rows_of(memory: Memory) -> Tables:
    return {
        table.name: {key: list(row.values()) for key, row in memory.stored_rows(table)} for table in (THINGS, PARTS)
    }


def apply_in_pages(events: Sequence[Happened], sizes: Sequence[int], *, twice: bool = False) -> Outcome:
    """Apply pages of these sizes, and one of the rest, stopping before the first event that cannot be applied."""
    tables: Tables = {"things": {}, "parts": {}}
    rest = list(events)
    for size in [*sizes, len(events)]:
        page, rest = rest[:size], rest[size:]
        poison = apply_page(tables, page)
        if poison is not None:
            return tables, poison
        if twice and not needs_rows(page):
            assert apply_page(tables, page) is None
    return tables, None


def apply_page(tables: Tables, page: Sequence[Happened]) -> int | None:
    poison = first_poison(tables, page)
    good = [each for each in page if poison is None or each[0].position < poison]
    if good:
        write(tables, folded(good))
    return poison


def needs_rows(page: Sequence[Happened]) -> bool:
    return any(table.needed for table in folded(page).tables.values())


def first_poison(tables: Tables, page: Sequence[Happened]) -> int | None:
    fold = Fold(MADE_UP)
    for index, (envelope, event) in enumerate(page):
        try:
            fold.add(envelope, event)
        except MissingRowError:
            earlier = first_poison(tables, page[:index])
            return envelope.position if earlier is None else earlier
    return min((at for name, table in fold.tables.items() for at in missing(tables[name], table)), default=None)


def missing(rows: dict[Key, list[Any]], fold: TableFold) -> list[int]:
    return [position for key, position in fold.needed.items() if key not in rows]


def folded(page: Sequence[Happened]) -> Fold:
    fold = Fold(MADE_UP)
    for envelope, event in page:
        fold.add(envelope, event)
    return fold


def write(tables: Tables, fold: Fold) -> None:
    """Do to dictionaries what the writer does to tables."""
    for name, change in fold.tables.items():
        rows = tables[name]
        for prefix in change.prefixes | change.deletes:
            for key in [key for key in rows if key[: len(prefix)] == prefix]:
                del rows[key]
        rows.update({key: list(row) for key, row in change.puts.items()})
        for key, patch in change.patches.items():
            assert key in rows, "a missing row went unnoticed"
            mover = patch.moved_by
            stamps = {"resource_version": mover.seq, "position": mover.position, "updated_at": mover.recorded_at}
            for field, value in (patch.fields | stamps).items():
                rows[key][change.table.index_of[field]] = value


@settings(max_examples=300, deadline=None)
@given(histories, st.lists(st.integers(0, 4), max_size=6))
def test_pages_come_to_what_events_come_to(all_changes: list[list[list[Any]]], sizes: list[int]) -> None:
    events = history(all_changes)

    assert apply_in_pages(events, sizes) == apply_one_by_one(events)


@settings(max_examples=200, deadline=None)
@given(histories, st.lists(st.integers(0, 4), max_size=6))
def test_a_page_applied_twice_changes_nothing(all_changes: list[list[list[Any]]], sizes: list[int]) -> None:
    """But for what the page needs and takes away itself: there the checkpoint's compare-and-set refuses the second."""
    events = history(all_changes)

    assert apply_in_pages(events, sizes, twice=True) == apply_one_by_one(events)


def forget_what_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TableFold, "_is_replaced", lambda _self, _key: False)


def forget_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = TableFold.delete

    def delete(self: TableFold, key: Key) -> None:
        self.needed.pop(key, None)
        original(self, key)

    monkeypatch.setattr(TableFold, "delete", delete)


def keep_patches_under_puts(monkeypatch: pytest.MonkeyPatch) -> None:
    original = TableFold._put

    def put(self: TableFold, key: Key, row: list[Any]) -> None:
        patch = self.patches.get(key)
        original(self, key, row)
        if patch is not None:
            self.patches[key] = patch

    monkeypatch.setattr(TableFold, "_put", put)


def forget_to_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    original = TableFold.replace

    def replace(self: TableFold, *arguments: Any) -> None:
        original(self, *arguments)
        self.prefixes.clear()

    monkeypatch.setattr(TableFold, "replace", replace)


@pytest.mark.parametrize(
    "plant", [forget_what_was_replaced, forget_what_is_needed, keep_patches_under_puts, forget_to_clear]
)
def test_planted_bugs_of_the_fold_are_caught(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)

    assert any(is_caught(seed) for seed in range(2000))


def is_caught(seed: int) -> bool:
    random = Random(seed)
    events = history(random_changes(random, 8))
    try:
        return apply_in_pages(events, [random.randint(1, 4) for _ in range(4)]) != apply_one_by_one(events)
    except AssertionError:
        return True
