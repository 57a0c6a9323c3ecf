"""Guards of the projector, its rebuilds and its views."""

from mutation.mutant import Mutant

_PROJECTOR = "services/projector/keelson/projector"
_APPLIER = f"{_PROJECTOR}/applier.py"
_FOLLOWER = f"{_PROJECTOR}/follower.py"
_REBUILD = f"{_PROJECTOR}/rebuild.py"
_LEASES = f"{_PROJECTOR}/leases.py"

MUTANTS = (
    Mutant(
        "F2",
        "a gap in the log is read past",
        f"{_PROJECTOR}/pages.py",
        "    if envelopes and (envelopes[0].position",
        "    if False and (envelopes[0].position",
        ("integration/test_bounds.py::test_f2_a_gap_in_the_log_is_an_alarm_and_nothing_is_read_past_it",),
    ),
    Mutant(
        "F8",
        "a projection ends when the database goes away",
        _FOLLOWER,
        "            except PASSING as error:\n",
        "            except ZeroDivisionError as error:\n",
        ("integration/test_projector_faults.py::test_f8_a_replica_outlives_a_database_that_is_away",),
    ),
    Mutant(
        "F11",
        "a dead holder's lease lasts until a clock that was put back is there again",
        f"{_PROJECTOR}/sql/take_leases.sql",
        "    OR held.expires_at > clock_timestamp() + make_interval(secs => $3)\n",
        "",
        ("integration/test_leases.py::test_f11_a_dead_holders_lease_does_not_outlast_a_clock_that_goes_back",),
    ),
    Mutant(
        "F11",
        "a lease is believed in by the wall clock",
        _LEASES,
        "        return time.monotonic() < self._until.get(name, 0.0)\n",
        "        return time.time() < self._until.get(name, 0.0) + time.time() - time.monotonic()\n",
        ("architecture/test_clocks.py::test_f11_nothing_waits_by_the_wall_clock",),
    ),
    Mutant(
        "F16",
        "rows are written outside the checkpoint's transaction",
        _APPLIER,
        "            await write_rows(connection, folded.fold)\n",
        '            await connection.execute("COMMIT")\n            await write_rows(connection, folded.fold)\n',
        ("integration/test_projector_faults.py::test_f16_a_crash_between_rows_and_checkpoint_loses_nothing",),
    ),
    Mutant(
        "F17",
        "a checkpoint moves wherever it stands",
        f"{_PROJECTOR}/sql/move_checkpoint.sql",
        "AND position = $3",
        "AND $3::bigint IS NOT NULL",
        ("integration/test_projector_faults.py::test_f17_a_frozen_runner_that_wakes_up_writes_nothing",),
    ),
    Mutant(
        "F18",
        "an event that a handler cannot take ends all projections",
        f"{_PROJECTOR}/folding.py",
        "        except Exception as error:  # noqa",
        "        except ZeroDivisionError as error:  # noqa",
        ("integration/test_projector_poison.py::test_f18_a_poison_event_stops_its_projection_only",),
    ),
    Mutant(
        "F18",
        "what the database refuses is blamed on the first event of its page",
        _APPLIER,
        "        return bad - 1\n",
        "        return 0\n",
        ("integration/test_projector_poison.py::test_f18_a_value_that_no_column_holds_is_found_in_its_page",),
    ),
    Mutant(
        "F19",
        "a projection waits for a notification, without a poll",
        _FOLLOWER,
        "async with asyncio.timeout(self._poll_interval_s):",
        "async with asyncio.timeout(None):",
        ("integration/test_projector_wakeup.py::test_f19_a_lost_notification_costs_at_most_the_poll_interval",),
    ),
    Mutant(
        "F22",
        "who was woken once looks again and again",
        _FOLLOWER,
        "            self.wake.clear()\n",
        "            await asyncio.sleep(0)\n",
        ("integration/test_projector_wakeup.py::test_f22_a_storm_of_notifications_is_one_wake_up",),
    ),
    Mutant(
        "F23",
        "a swap leaves the checkpoint before what it has applied",
        _REBUILD,
        "_REPLACE_CHECKPOINT, name, version, rest.end)",
        "_REPLACE_CHECKPOINT, name, version, position)",
        ("integration/test_rebuild.py::test_f23_what_comes_just_before_the_swap_is_in_the_new_tables",),
    ),
    Mutant(
        "F23",
        "a rebuild is swapped in without what came last",
        _REBUILD,
        "            await self._write(connection, self._fold(rest))\n",
        "",
        ("integration/test_rebuild.py::test_f23_what_comes_just_before_the_swap_is_in_the_new_tables",),
    ),
    Mutant(
        "F23",
        "a swap lets the checkpoint move meanwhile",
        _REBUILD,
        "            await connection.fetchval(_LOCK_CHECKPOINT, self._projection.name)\n",
        "",
        ("integration/test_rebuild.py::test_f23_a_swap_holds_the_checkpoint_while_it_reads_the_rest",),
    ),
    Mutant(
        "F23",
        "a rebuild that was frozen goes on beside the one that took over",
        _REBUILD,
        '        if status != "UPDATE 1":\n',
        "        if False:\n",
        ("integration/test_rebuild.py::test_a_frozen_rebuild_is_fenced_off_when_another_takes_over",),
    ),
    Mutant(
        "F23",
        "a swap waits for the live tables, and all readers behind it",
        _REBUILD,
        "            await connection.fetchval(_BEGIN_SWAP, str(SWAP_LOCK_TIMEOUT_MS))\n",
        "",
        ("integration/test_rebuild.py::test_f23_a_swap_keeps_readers_waiting_only_so_long",),
    ),
    Mutant(
        "F24",
        "a transaction with outdated plans is not tried again",
        _APPLIER,
        "_ATTEMPTS = 3\n",
        "_ATTEMPTS = 1\n",
        ("integration/test_projector_faults.py::test_f24_a_transaction_whose_plans_are_outdated_is_retried",),
    ),
    Mutant(
        "F25",
        "the order of a map's keys gets into a row",
        "libs/views/keelson/views/activity.py",
        "    names = sorted(value)\n",
        "    names = list(set(value))\n",
        ("properties/test_projection_replay.py::test_f25_a_replay_under_another_hash_seed_gives_identical_rows[1]",),
    ),
)
