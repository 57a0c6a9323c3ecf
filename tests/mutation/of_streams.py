"""Guards of streams: of desired state in the query service, and of whoever follows one."""

from mutation.mutant import Mutant

_FOLLOWING = "libs/client/keelson/client/following.py"
_READERS = "libs/client/keelson/client/stream.py"
_TRANSPORT = "libs/client/keelson/client/transport.py"
_WATCHING = "services/query/keelson/query/desired/watching.py"

_DESIRED = "integration/test_desired_streams.py"
_LAGGING = "unit/query/test_desired.py"
_STREAM = "unit/client/test_stream.py"

MUTANTS = (
    Mutant(
        "F28",
        "a stream may be silent for ever",
        _TRANSPORT,
        "sock_read=idle_timeout_s)",
        "sock_read=None)",
        (f"{_STREAM}::test_f28_a_stream_that_says_nothing_is_opened_again",),
    ),
    Mutant(
        "F29",
        "what is repeated is believed",
        _READERS,
        "if event.position <= self._position or any(event.position == each.position for each in self._held):",
        "if any(event.position == each.position for each in self._held):",
        (f"{_STREAM}::test_what_is_repeated_is_given_once",),
    ),
    Mutant(
        "F29",
        "half a command is kept when its stream is cut",
        _READERS,
        "        self._over = False\n        self._held.clear()\n",
        "        self._over = False\n",
        (f"{_STREAM}::test_half_a_command_of_another_log_is_dropped_and_a_reader_that_keeps_it_found",),
    ),
    Mutant(
        "F29",
        "a digest is believed",
        _READERS,
        "if hashlib.sha256(_canonical(msgspec.json.decode(snapshot.items))).hexdigest() != snapshot.digest:",
        "if not snapshot.digest:",
        ("unit/client/test_stream_desired.py::test_what_has_not_its_digest_is_asked_for_again_all_of_it",),
    ),
    Mutant(
        "F29",
        "what a node kept is believed by its version",
        _READERS,
        "        self._digest = digest\n",
        "        self._digest: str | None = None\n",
        ("unit/client/test_stream_desired.py::test_f29_what_the_node_kept_is_not_confirmed_by_another_digest",),
    ),
    Mutant(
        "F29",
        "the first look at a view is taken for the head of the log",
        _WATCHING,
        "        self._heard = self.reading.position\n",
        "        self._heard = self._hub.end\n",
        (f"{_DESIRED}::test_a_change_between_the_first_look_and_the_first_event_is_told",),
    ),
    Mutant(
        "F29",
        "what was read before a change is read for it",
        _WATCHING,
        "reading = await self._board.read(self._next)",
        "reading = await self._board.read(0)",
        (f"{_DESIRED}::test_the_view_is_waited_for_before_a_change_is_told",),
    ),
    Mutant(
        "F29",
        "what is waited for runs on ahead of a view that lags",
        _WATCHING,
        "        if self.is_current:\n            self._next = first\n",
        "        self._next = last\n",
        (f"{_LAGGING}::test_f29_a_view_that_lags_is_told_as_it_goes_on_while_more_comes",),
    ),
    Mutant(
        "F29",
        "a view that is not where it was said to be is told as if it were",
        _WATCHING,
        "        if reading.position < self._next:\n",
        "        if reading.position < 0:\n",
        (f"{_LAGGING}::test_f29_a_client_that_knows_more_than_the_view_is_told_nothing_older",),
    ),
    Mutant(
        "F30",
        "a cursor of another epoch is gone on from",
        _READERS,
        "return self._epoch not in (None, cursor.epoch)",
        "return False",
        (f"{_STREAM}::test_f30_another_epoch_is_said_and_followed_from_its_beginning",),
    ),
    Mutant(
        "F32",
        "all clients come back at once",
        _FOLLOWING,
        "wait_s * (1 + chance) / 2",
        "wait_s",
        (f"{_STREAM}::test_f32_pauses_grow_to_a_bound_are_spread_and_begin_anew_after_progress",),
    ),
    Mutant(
        "F34",
        "a refusal that stands is asked about for ever",
        _FOLLOWING,
        "            elif error.status < _SERVER_FAULT and error.status not in _LATER:\n                raise\n",
        "",
        (f"{_STREAM}::test_f34_a_refusal_that_stands_is_raised",),
    ),
)
