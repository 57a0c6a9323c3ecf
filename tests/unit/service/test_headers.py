"""Headers that several services read."""

import pytest

from keelson.service.headers import read_header, read_wait_s, require_known
from keelson.service.problems import Problem


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([b"respond-async"], None),
        ([b"waiting=5"], None),
        ([b"wait=0"], 0),
        ([b"wait=5"], 5),
        ([b'Wait = "7"'], 7),
        ([b"respond-async, wait=5"], 5),
        ([b"return=minimal", b"wait=5"], 5),
        ([b"wait=31"], 30),
        ([b"wait=999999999"], 30),
    ],
)
def test_how_long_the_client_would_wait(values: list[bytes], expected: int | None) -> None:
    assert read_wait_s([(b"prefer", value) for value in values]) == expected


@pytest.mark.parametrize(
    "values", [[b"wait"], [b"wait="], [b"wait=-1"], [b"wait=1.5"], [b"wait=x"], [b"wait=1, wait=2"], [b"wait=1"] * 2]
)
def test_an_unfit_wait_is_invalid(values: list[bytes]) -> None:
    with pytest.raises(Problem) as caught:
        read_wait_s([(b"prefer", value) for value in values])
    assert caught.value.code == "invalid"


def test_a_header_that_may_stand_once() -> None:
    assert read_header([], b"etag") is None
    assert read_header([(b"etag", b"1"), (b"x", b"2")], b"etag") == b"1"
    with pytest.raises(Problem, match="Etag must not be repeated"):
        read_header([(b"etag", b"1"), (b"etag", b"1")], b"etag")


def test_headers_of_ours_must_be_known() -> None:
    require_known([(b"keelson-reason", b"x"), (b"x-anything", b"y")], {b"keelson-reason"})
    with pytest.raises(Problem) as caught:
        require_known([(b"keelson-reason", b"x")])
    assert caught.value.code == "not_supported"
