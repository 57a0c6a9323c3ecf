"""What is a well-formed id, and what its prefix says."""

import re

import pytest

from keelson.events.ids import PLATFORM_ID, id_pattern, read_aggregate_type

WELL_FORMED = "app_01m83v1fddfwaaypkzhbbptgsg"

ILL_FORMED = [
    "",
    "app",
    "app_",
    "_01m83v1fddfwaaypkzhbbptgsg",
    "01m83v1fddfwaaypkzhbbptgsg",
    "app-01m83v1fddfwaaypkzhbbptgsg",
    "App_01m83v1fddfwaaypkzhbbptgsg",
    "app_01m83v1fddfwaaypkzhbbptgs",
    "app_01m83v1fddfwaaypkzhbbptgsgg",
    "app_01M83V1FDDFWAAYPKZHBBPTGSG",
    "app_81m83v1fddfwaaypkzhbbptgsg",
    "app_01m83v1fddfwaaypkzhbbptgsi",
    "app_01m83v1fddfwaaypkzhbbptgsg\n",
    " app_01m83v1fddfwaaypkzhbbptgsg",
]


def test_the_prefix_names_the_type() -> None:
    assert read_aggregate_type(WELL_FORMED) == "app"
    assert read_aggregate_type(PLATFORM_ID) == "platform"


@pytest.mark.parametrize("text", ILL_FORMED)
def test_what_is_ill_formed_has_no_type(text: str) -> None:
    assert read_aggregate_type(text) is None


def test_a_pattern_accepts_ids_of_its_prefix_alone() -> None:
    assert re.search(id_pattern("app"), WELL_FORMED)
    assert not re.search(id_pattern("env"), WELL_FORMED)


@pytest.mark.parametrize("text", ILL_FORMED)
def test_a_pattern_refuses_what_is_ill_formed(text: str) -> None:
    assert not re.search(id_pattern("app"), text)
