"""What reads may be asked."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keelson.query.parameters import (
    ACTIVITY_FILTERS,
    COLLECTION_FILTERS,
    CollectionParameters,
    PageParameters,
    filtered_by,
    read_filters,
    read_key_cursor,
    read_position_cursor,
    write_key_cursor,
)
from keelson.views import table_named

APP = "app_01j00000000000000000000000"


def filters_of(collection: str) -> set[str]:
    _, table = table_named(collection)
    parameters = filtered_by(CollectionParameters, table, COLLECTION_FILTERS)
    return set(parameters.__struct_fields__) - set(CollectionParameters.__struct_fields__)


@pytest.mark.parametrize(
    ("collection", "filters"),
    [
        ("orgs", {"name"}),
        ("projects", {"org_id", "name"}),
        ("members", {"org_id", "person_id", "role"}),
        ("principals", {"org_id", "name"}),
        ("apps", {"org_id", "project_id", "name"}),
        ("envs", {"org_id", "project_id", "app_id", "name"}),
        ("releases", {"org_id", "project_id", "app_id"}),
        ("deploys", {"org_id", "project_id", "app_id", "env_id", "status"}),
        ("routes", {"org_id", "project_id", "app_id", "env_id", "hostname"}),
    ],
)
def test_a_collection_is_filtered_by_ancestors_and_what_tells_its_rows_apart(
    collection: str, filters: set[str]
) -> None:
    assert filters_of(collection) == filters


def test_only_filters_that_were_asked_for_are_read() -> None:
    _, table = table_named("deploys")
    parameters = filtered_by(CollectionParameters, table, COLLECTION_FILTERS)
    asked = msgspec.convert({"status": "failed", "limit": "7"}, parameters, strict=False)
    assert read_filters(asked, COLLECTION_FILTERS) == {"status": "failed"}


def test_a_status_that_there_is_not_is_refused() -> None:
    _, table = table_named("deploys")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"status": "odd"}, filtered_by(CollectionParameters, table, COLLECTION_FILTERS), strict=False)


def test_the_text_null_is_a_text() -> None:
    _, table = table_named("activity")
    parameters = filtered_by(PageParameters, table, ACTIVITY_FILTERS)
    assert read_filters(msgspec.convert({"org_id": "null"}, parameters, strict=False), ACTIVITY_FILTERS) == {
        "org_id": "null"
    }


def test_a_cursor_of_a_row_is_read_as_it_was_written() -> None:
    assert read_key_cursor(write_key_cursor(APP)) == APP
    assert read_position_cursor(write_key_cursor("42")) == 42


@given(st.text(max_size=60))
def test_garbage_is_no_cursor(garbage: str) -> None:
    key, position = read_key_cursor(garbage), read_position_cursor(garbage)
    assert key is None or write_key_cursor(key) == garbage
    assert position is None or write_key_cursor(str(position)) == garbage


@pytest.mark.parametrize("key", ["", "app", "app_", "1\n", "app_01j00000000000000000000000\n", "0", "9" * 30])
def test_what_was_never_a_key_is_no_cursor(key: str) -> None:
    assert read_key_cursor(write_key_cursor(key)) is None
    assert read_position_cursor(write_key_cursor(key)) is None
