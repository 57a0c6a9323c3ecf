"""Guards of the scheduler.

That no node is lost by what befalls all of them at once counts as F8 and F10: heartbeats are not answered while the
database is away, and not written while its disk is full.
"""

from mutation.mutant import Mutant

_SCHEDULER = "services/scheduler/keelson/scheduler"
_UNIT = "unit/scheduler"

MUTANTS = (
    Mutant(
        "F8",
        "after an outage, nodes are silent since before it",
        f"{_SCHEDULER}/heartbeats.py",
        "        if self._failed and passed_s >= self._recent_s:\n",
        "        if False:\n",
        (
            f"{_UNIT}/test_heartbeats.py::test_an_outage_makes_no_node_silent_and_after_a_long_one_all_have_their_time_again",
        ),
    ),
    Mutant(
        "F8",
        "after an outage, dead nodes are taken for living ones",
        f"{_SCHEDULER}/heartbeats.py",
        "        self._beats.clear()\n",
        "",
        (
            f"{_UNIT}/test_heartbeats.py::test_after_an_outage_only_who_beats_is_heard",
            f"{_UNIT}/test_nodes.py::test_an_outage_brings_nobody_back_who_is_dead",
        ),
    ),
    Mutant(
        "F10",
        "nodes are lost though none is heard",
        f"{_SCHEDULER}/domain/nodes.py",
        "node_id in signs.silent and signs.heard:",
        "node_id in signs.silent:",
        (f"{_UNIT}/test_nodes.py::test_when_all_are_silent_none_is_lost",),
    ),
    Mutant(
        "F10",
        "of nodes that fall silent together, the last are evidence against the first",
        f"{_SCHEDULER}/heartbeats.py",
        "self._silent_s.get(each, 0.0) < self._recent_s)",
        "self._silent_s.get(each, 0.0) < self._lost_after_s)",
        (f"{_UNIT}/test_nodes.py::test_all_that_are_cut_off_at_once_are_kept_whatever_their_turns",),
    ),
    Mutant(
        "F10",
        "of nodes that come back together, the first is evidence against the last",
        f"{_SCHEDULER}/heartbeats.py",
        "        if beats and not self.heard:\n",
        "        if False:\n",
        (f"{_UNIT}/test_nodes.py::test_all_that_are_back_after_it_are_kept_whoever_beats_first",),
    ),
    Mutant(
        "F11",
        "deploys are timed by the database's clock",
        f"{_SCHEDULER}/timekeeping.py",
        "            if before is None\n",
        "            if True\n",
        (f"{_UNIT}/test_timekeeping.py::test_f11_a_jump_of_the_databases_clock_neither_shortens_nor_lengthens_it",),
    ),
    Mutant(
        "F11",
        "a deploy is overdue at a start by the database's clock alone",
        f"{_SCHEDULER}/timekeeping.py",
        "return min(max(passed_s, 0.0), self.timeout_s * (1 - LEFT_AFTER_A_START))",
        "return max(passed_s, 0.0)",
        (f"{_UNIT}/test_timekeeping.py::test_f11_by_a_start_after_a_jump_it_loses_no_more_than_half",),
    ),
    Mutant(
        "F17",
        "of two schedulers, each places under ids of its own",
        f"{_SCHEDULER}/domain/ids.py",
        'f"{env_id}/{process}/{number}"',
        'f"{env_id}/{process}/{object()}"',
        (
            f"{_UNIT}/test_rollout.py::test_missing_replicas_are_allocated_under_ids_that_follow_from_how_many_there_were",
        ),
    ),
    Mutant(
        "F17",
        "a drain relies on nothing",
        f"{_SCHEDULER}/domain/rollout.py",
        "_drain(workload, standing, ready, _relied_on(standing, ready, bounds))",
        "_drain(workload, standing, ready, ())",
        (f"{_UNIT}/test_rollout.py::test_a_drain_relies_on_as_many_ready_ones_as_must_stay",),
    ),
    Mutant(
        "F17",
        "what a drain relies on may have changed since it was seen",
        f"{_SCHEDULER}/acting.py",
        'SetDesiredState(instance_id=each.id, desired_state="running").at(each.seq)',
        'SetDesiredState(instance_id=each.id, desired_state="running")',
        (f"{_UNIT}/test_acting.py::test_a_drain_is_one_bundle_with_what_it_relies_on",),
    ),
    Mutant(
        "F17",
        "what was on a lost node is ended though it is back",
        f"{_SCHEDULER}/acting.py",
        "[as_it_is.at(action.node.seq), *ended]",
        "ended",
        (f"{_UNIT}/test_acting.py::test_what_is_lost_is_ended_while_its_node_is_offline",),
    ),
    Mutant(
        "F17",
        "a node is lost though it has been heard since it was seen",
        f"{_SCHEDULER}/acting.py",
        "if_match=action.node.seq",
        "if_match=None",
        (f"{_UNIT}/test_acting.py::test_states_and_statuses_are_set_as_long_as_they_are_as_they_were_seen",),
    ),
    Mutant(
        "F26",
        "after a failover that lost an allocation, the next one's id is always taken",
        f"{_SCHEDULER}/domain/rollout.py",
        "return (each for each in ids if each not in workload.ahead)",
        "return ids",
        (
            f"{_UNIT}/test_rollout.py::test_after_a_failover_that_lost_an_allocation_but_not_the_next_neither_is_in_the_way",
        ),
    ),
)
