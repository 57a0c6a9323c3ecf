"""Guards of the node agent."""

from mutation.mutant import Mutant

_AGENT = "services/agent/keelson/agent"
_DRIVER = f"{_AGENT}/drivers/process"
_DRIVEN = "integration/test_process_driver.py"
_SUPERVISED = "unit/agent/test_supervisor.py"

MUTANTS = (
    Mutant(
        "F7",
        "an agent starts again what runs of the one before",
        f"{_AGENT}/agent.py",
        "            if run is None:\n",
        "            if run is None or run.was_ready:\n",
        ("unit/agent/test_agent.py::test_without_the_control_plane_it_goes_on_with_what_it_knows_also_anew",),
    ),
    Mutant(
        "F7",
        "an agent does not look for what was started and not noted",
        f"{_DRIVER}/driver.py",
        "record.leader or _find_leader(record.instance.instance_id)",
        "record.leader",
        (
            f"{_DRIVEN}::test_an_agent_killed_between_a_start_and_its_note_starts_nothing_twice",
            f"{_DRIVEN}::test_a_disk_that_fills_up_with_a_start_leaves_nothing_that_nobody_ends",
        ),
    ),
    Mutant(
        "F7",
        "an agent leaves what a leader left behind that was not noted",
        f"{_DRIVER}/driver.py",
        'return next(found, Identity(marked[0], "long ago") if marked else None)',
        "return next(found, None)",
        (f"{_DRIVEN}::test_what_a_leader_left_behind_that_was_not_noted_is_ended_before_another_starts",),
    ),
    Mutant(
        "F7",
        "an agent takes whoever has the pid by now for its instance",
        f"{_DRIVER}/identity.py",
        "return seen is not None and seen.started == self.started and seen.state",
        "return seen is not None and seen.state",
        (f"{_DRIVEN}::test_a_pid_that_is_another_process_by_now_is_left_alone",),
    ),
    Mutant(
        "F7",
        "an agent tells what ended meanwhile to be ready",
        f"{_AGENT}/supervisor.py",
        "            if not watching[0].done():\n",
        "            if watching:\n",
        (f"{_SUPERVISED}::test_one_that_was_ready_and_ended_while_no_agent_was_there_is_not_told_to_be_ready",),
    ),
    Mutant(
        "F10",
        "an agent takes a start that it cannot note for none",
        f"{_DRIVER}/driver.py",
        "except OSError as error:  # it runs; an agent to come finds it by its marker",
        "except ValueError as error:",
        (f"{_DRIVEN}::test_a_disk_that_fills_up_with_a_start_leaves_nothing_that_nobody_ends",),
    ),
    Mutant(
        "F10",
        "an agent does not keep later what the disk had no room for",
        f"{_AGENT}/agent.py",
        "elif not self._is_kept and self._desired is not None:",
        "elif self._desired is None:",
        ("unit/agent/test_agent.py::test_a_disk_that_is_full_stops_nothing_and_what_it_had_no_room_for_is_kept_later",),
    ),
    Mutant(
        "F10",
        "an agent ends of a line that it cannot log",
        f"{_AGENT}/logs.py",
        "suppress(OSError):\n            self._file.flush()",
        "suppress(ValueError):\n            self._file.flush()",
        (
            "unit/agent/test_logs.py::test_what_cannot_be_written_is_lost_and_whoever_says_it_goes_on",
            "unit/agent/test_program.py::test_a_log_that_cannot_be_written_ends_nothing_and_is_no_exit_code",
        ),
    ),
    Mutant(
        "F10",
        "a service fails by a line that it cannot log",
        "libs/service/keelson/service/logs.py",
        "suppress(OSError):\n            self._file.write(line)",
        "suppress(ValueError):\n            self._file.write(line)",
        ("unit/service/test_logs.py::test_what_cannot_be_written_is_lost_and_whoever_says_it_goes_on",),
    ),
    Mutant(
        "F26",
        "an agent holds on to a higher version of another epoch",
        f"{_AGENT}/agent.py",
        "before is not None and before.epoch == new.epoch and before.version > new.version",
        "before is not None and before.version > new.version",
        ("unit/agent/test_agent.py::test_in_another_epoch_what_is_older_is_taken_and_all_is_told_again",),
    ),
    Mutant(
        "F26",
        "an agent takes what it told the log of before for told",
        f"{_AGENT}/agent.py",
        "            self._reports.doubt()\n",
        "            pass\n",
        ("unit/agent/test_agent.py::test_in_another_epoch_what_is_older_is_taken_and_all_is_told_again",),
    ),
    Mutant(
        "F43",
        "the agent's log has what an exception quotes",
        f"{_AGENT}/logs.py",
        'f": {error}" if isinstance(error, OSError) else ""',
        'f": {error}"',
        ("unit/agent/test_logs.py::test_f43_what_exceptions_quote_is_left_out",),
    ),
    Mutant(
        "F43",
        "an agent's files may be read by everybody",
        f"{_AGENT}/state.py",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)",
        (
            "unit/agent/test_state.py::test_everything_is_for_the_owner_alone",
            "integration/test_process_driver.py::test_secrets_are_for_the_owner_alone_asked_for_once_and_gone_at_the_end",
        ),
    ),
    Mutant(
        "F43",
        "an instance's secrets are written while its folder is removed",
        f"{_DRIVER}/aside.py",
        "        await asyncio.wait((doing,))\n",
        "",
        (f"{_DRIVEN}::test_who_is_stopped_while_its_secrets_are_written_leaves_none",),
    ),
    Mutant(
        "F43",
        "an instance's secrets outlive it",
        f"{_AGENT}/supervisor.py",
        "        self._driver.discard(self._instance.instance_id)\n",
        "",
        ("unit/agent/test_supervisor.py::test_it_ends_as_it_is_ordered",),
    ),
)
