"""A canary is found in whatever form it stands, and nothing else is."""

import base64

from support.canaries import Canaries, find


def test_a_canary_is_found_in_every_form_at_every_offset() -> None:
    canaries = Canaries()
    core, other = canaries.plant("secret", "here"), canaries.plant("text", "there")
    for before in ("", "a", "ab", "abc"):
        for after in ("", "x", "xy", "xyz"):
            value = f"{before}{core}{after}"
            for text in (value, value.upper(), value.encode().hex(), base64.b64encode(value.encode()).decode()):
                assert find(f'{{"x": "{text}"}}', canaries.planted) == {"secret of here"}, text
            assert find(base64.urlsafe_b64encode(value.encode()).decode().rstrip("="), canaries.of("secret"))
    assert not find(f"{core[:-1]} {other[1:]} {other[::-1]}", canaries.planted)
    assert not find(core, canaries.of("text", "name"))
