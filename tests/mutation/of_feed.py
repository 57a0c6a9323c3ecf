"""Guards of the change feed: what is told, to whom, and who is waited for."""

from mutation.mutant import Mutant

_FEED = "services/query/keelson/query/feed"
_ADMISSION = f"{_FEED}/admission.py"
_CHUNKS = f"{_FEED}/chunks.py"
_EVENTS = f"{_FEED}/events.py"
_GUARD = f"{_FEED}/guard.py"
_HUB = f"{_FEED}/hub.py"
_STREAM = f"{_FEED}/stream.py"

_TOLD = "integration/test_feed.py"
_SHARES = "integration/test_feed_shares.py"
_CLIENTS = "integration/test_feed_clients.py"
_ENDINGS = "integration/test_feed_endings.py"
_RIGHTS = "integration/test_feed_rights.py"
_PARTS = "unit/query/test_feed.py"
_GUARDING = "unit/query/test_feed_guard.py"

MUTANTS = (
    Mutant(
        "F26",
        "another log goes on where the one before was",
        f"{_FEED}/follower.py",
        "        if page.head < self._hub.end:\n",
        "        if page.head < 0:\n",
        (f"{_TOLD}::test_f26_when_the_log_ends_before_what_was_read_streams_say_so",),
    ),
    Mutant(
        "F28",
        "a client that takes nothing is waited for for ever",
        "libs/service/keelson/service/streaming.py",
        "async with asyncio.timeout(self._timeout_s) as self._waiting:",
        "async with asyncio.timeout(None) as self._waiting:",
        (f"{_CLIENTS}::test_f28_a_client_that_vanished_without_a_word_is_found",),
    ),
    Mutant(
        "F28",
        "a client that is told much in its sleep is waited for in sleep",
        _STREAM,
        "            if self._body.is_full:  # filled",
        "            if False:  # filled",
        (f"{_ENDINGS}::test_f28_who_is_told_much_in_its_sleep_is_waited_for_no_longer",),
    ),
    Mutant(
        "F28",
        "the kernel keeps megabytes of what a client does not take",
        "libs/service/keelson/service/streaming.py",
        "        self._answer.bound_unsent(MAX_UNSENT_BYTES)\n",
        "",
        (f"{_CLIENTS}::test_f28_the_kernel_keeps_little_of_what_a_client_does_not_take",),
    ),
    Mutant(
        "F29",
        "who is woken takes what woke it for quiet",
        _HUB,
        "                sleeper.rouse(before)\n",
        "                sleeper.rouse(self.end)\n",
        (f"{_PARTS}::test_who_sleeps_is_woken_by_what_matches_and_told_how_far_all_was_quiet",),
    ),
    Mutant(
        "F29",
        "what arrives while one gets up is taken for quiet",
        _HUB,
        "        return max(examined, self._quiet_to)\n",
        "        return max(examined, self._hub.end)\n",
        (f"{_PARTS}::test_what_arrives_after_the_time_is_over_is_not_taken_for_quiet",),
    ),
    Mutant(
        "F29",
        "an id stands on each event, and splits its command",
        _CHUNKS,
        "is_last = following is None or following.envelope.command_id != envelope.command_id",
        "is_last = True",
        (
            f"{_PARTS}::test_ids_stand_on_the_last_event_of_each_command_that_matches",
            f"{_TOLD}::test_f29_events_of_one_command_come_with_one_id_however_they_are_interleaved",
        ),
    ),
    Mutant(
        "F29",
        "what is told at once is told again by whom it wakes",
        _EVENTS,
        "        self._examined = max(self._examined, quiet_to)  # what was told",
        "        self._examined = quiet_to  # what was told",
        (f"{_PARTS}::test_what_was_told_at_once_is_not_told_again",),
    ),
    Mutant(
        "F30",
        "a cursor beyond the head waits for its event",
        _EVENTS,
        "    if after.position > head:\n",
        "    if after.position < 0:\n",
        (f"{_TOLD}::test_f30_a_cursor_of_another_epoch_or_beyond_the_head_is_gone",),
    ),
    Mutant(
        "F30",
        "what has not arrived here counts as beyond the head, without a look",
        _EVENTS,
        "            head = await read_head(self._feed.db)\n"
        "            require_within(self._after, head.epoch, head.position)\n",
        "            require_within(self._after, self._epoch, self._hub.end)\n"
        "            head = await read_head(self._feed.db)\n",
        (f"{_TOLD}::test_f30_what_is_beyond_this_replica_is_looked_for_before_it_is_called_gone",),
    ),
    Mutant(
        "F31",
        "a stream that nothing matches is told nothing",
        _STREAM,
        "        if not (is_new or is_silent):\n",
        "        if not is_new:\n",
        (f"{_TOLD}::test_f31_a_quiet_stream_is_told_how_far_it_is",),
    ),
    Mutant(
        "F32",
        "any number of streams is let in",
        _ADMISSION,
        "        if self.streams >= self._most:\n",
        "        if self._most < 0:\n",
        (f"{_CLIENTS}::test_f32_no_more_streams_than_are_allowed",),
    ),
    Mutant(
        "F32",
        "who connects has the time of a question for the whole of the queue",
        _GUARD,
        "        async with self._confirming:\n            asking",
        "        async with asyncio.timeout(MAX_DOUBT_S), self._confirming:\n            asking",
        (f"{_GUARDING}::test_f32_a_herd_of_different_credentials_has_one_turn_after_the_other",),
    ),
    Mutant(
        "F32",
        "who connects while nobody answers ends the streams that are open",
        _GUARD,
        "                credential.refuse(asking)\n",
        '                credential.judge(None, unknown="unknown")\n',
        (f"{_GUARDING}::test_f32_who_connects_while_nobody_answers_is_refused_and_ends_no_stream",),
    ),
    Mutant(
        "F33",
        "a service that stops leaves its streams open",
        f"{_FEED}/feed.py",
        "        on_stop(self.hub.stop)\n",
        "",
        (f"{_CLIENTS}::test_f33_streams_end_with_their_place_when_the_service_stops",),
    ),
    Mutant(
        "F33",
        "a client that is being waited for has all its time while the service stops",
        _HUB,
        "            subscription.hurry()\n",
        "            pass\n",
        (f"{_CLIENTS}::test_f33_who_does_not_read_does_not_hold_a_service_that_stops",),
    ),
    Mutant(
        "F34",
        "no event is looked at for whom it concerns the credential of",
        _HUB,
        "            self._look_closely(entry.envelope)\n",
        "            pass\n",
        (f"{_RIGHTS}::test_f34_streams_end_within_a_second_on_every_replica_and_are_told_nothing_more",),
    ),
    Mutant(
        "F34",
        "a stream of a doubted credential is told things at once",
        _STREAM,
        "if self._must_end or self._watch.is_doubted or self._body.is_full:",
        "if self._must_end or self._body.is_full:",
        (f"{_RIGHTS}::test_f34_nothing_is_told_while_a_credential_is_doubted",),
    ),
    Mutant(
        "F34",
        "a stream begins by what was known of its credential before",
        _STREAM,
        "            await feed.guard.confirm(watch)\n",
        "",
        (f"{_RIGHTS}::test_f34_a_stream_does_not_begin_by_what_was_known_before",),
    ),
    Mutant(
        "F34",
        "a client that is being waited for outlives its rights",
        _STREAM,
        "        if self._body.is_full:\n            self._body.abort()\n",
        "        if False:\n            self._body.abort()\n",
        (f"{_ENDINGS}::test_f34_who_takes_nothing_does_not_outlive_its_rights",),
    ),
    Mutant(
        "F34",
        "a stream that waits for the database outlives its rights",
        _HUB,
        "        if self._working is not None and not self._working.expired():\n",
        "        if False:\n",
        (f"{_ENDINGS}::test_f34_streams_that_catch_up_end_at_once_whether_it_is_their_turn_or_not",),
    ),
    Mutant(
        "F34",
        "an end that is further away than a timer is never asked about",
        _GUARD,
        "loop.call_later(LONGEST_TIMER_S, self._await_expiry, watch, credential)",
        "loop.call_later(LONGEST_TIMER_S, lambda: None)",
        (f"{_GUARDING}::test_f34_an_end_that_is_far_away_is_asked_about_when_it_has_come",),
    ),
    Mutant(
        "F34",
        "a read that waits tells of what its replica has not heard of",
        f"{_FEED}/endpoint.py",
        "                await feed.guard.confirm(watch)\n            await watch.settled()\n",
        "                pass\n            await watch.settled()\n",
        (f"{_RIGHTS}::test_f34_a_read_that_waits_tells_nothing_of_what_came_after_its_rights_ended",),
    ),
    Mutant(
        "F41",
        "streams are everybody's",
        f"{_FEED}/endpoint.py",
        "    if reach.org_id is None:\n        return sought\n",
        "    if reach is not None:\n        return sought\n",
        (f"{_RIGHTS}::test_f41_a_stream_is_of_the_organisation_of_who_opened_it",),
    ),
    Mutant(
        "F45",
        "one organisation has all streams that there may be",
        _ADMISSION,
        "        if holder.streams >= self._most_of_one:\n",
        "        if self._most_of_one < 0:\n",
        (f"{_SHARES}::test_f45_one_organisation_does_not_take_the_streams_of_others",),
    ),
    Mutant(
        "F45",
        "all organisations together keep nodes and operators out",
        _ADMISSION,
        "        if of_organisation and self._of_organisations >= self._most_of_organisations:\n",
        "        if self._most_of_organisations < 0:\n",
        (f"{_SHARES}::test_f45_all_organisations_together_leave_room_for_nodes_edges_and_operators",),
    ),
)
