"""Guards of the node agent."""

from mutation.mutant import Mutant

_AGENT = "services/agent/keelson/agent"

MUTANTS = (
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
        "an instance's secrets outlive it",
        f"{_AGENT}/supervisor.py",
        "        self._driver.discard(self._instance.instance_id)\n",
        "",
        (
            "unit/agent/test_supervisor.py::test_it_ends_as_it_is_ordered",
            "system/test_agent.py::test_f43_secrets_are_handed_over_and_nobody_else_hears_of_them",
        ),
    ),
)
