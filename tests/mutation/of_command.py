"""Guards of the command service: what is decided, confirmed and answered again."""

from mutation.mutant import Mutant

_COMMAND = "services/command/keelson/command"
_DECIDE = f"{_COMMAND}/decide.py"

_QUOTA = f"{_COMMAND}/domain/quota.py"

_MEMBER = f"{_COMMAND}/domain/member.py"
_MEMBERS = "unit/command/domain/test_member.py"

_REVOCATION = "integration/test_revocation.py"
_EVERYBODY = "integration/test_who_may_what.py"
_RACES = "integration/test_command_races.py"
_VAULT = "integration/test_command_vault.py"
_QUOTAS = "integration/test_quotas.py"

MUTANTS = (
    Mutant(
        "F15",
        "a replay is answered to who was revoked since",
        _DECIDE,
        "        if await self._has_moved(tx, tx.identity.holder_id):\n            return None\n",
        "",
        (f"{_REVOCATION}::test_f15_a_replay_is_not_answered_to_who_may_not_send_it_any_more",),
    ),
    Mutant(
        "F15",
        "a denial is answered by what its key keeps",
        _DECIDE,
        "        if confirmation.known_key is not None and not denied:\n",
        "        if confirmation.known_key is not None:\n",
        (f"{_REVOCATION}::test_f15_a_replay_is_not_answered_to_who_may_not_send_it_any_more",),
    ),
    Mutant(
        "F41",
        "what a command names is found, whosever it is",
        f"{_COMMAND}/transaction.py",
        "found.state.deleted or not self.grants.sees(found.ids)",
        "found.state.deleted",
        (f"{_EVERYBODY}::test_what_another_organisation_has_cannot_be_named_beside_ones_own",),
    ),
    Mutant(
        "F41",
        "what a command is about is anybody's",
        f"{_COMMAND}/authorize.py",
        "if subject is None or not tx.grants.sees(subject.ids):",
        "if subject is None:",
        (f"{_EVERYBODY}::test_f41_every_command_as_everybody",),
    ),
    Mutant(
        "F44",
        "a sealed value opens in the place of another",
        f"{_COMMAND}/sealing.py",
        '(b"keelson", _FORMAT, what, secret_id.encode(), str(version).encode())',
        '(b"keelson", _FORMAT, what)',
        ("unit/command/test_sealing.py::test_a_row_in_the_place_of_another_does_not_open",),
    ),
    Mutant(
        "F43",
        "a secret's digest is that of anybody's equal values",
        f"{_COMMAND}/sealing.py",
        'secret_id.encode() + b"\\0" + _ENCODER.encode(values)',
        "_ENCODER.encode(values)",
        ("unit/command/test_sealing.py::test_a_digest_says_whether_values_are_equal_and_outlives_a_rotation",),
    ),
    Mutant(
        "F12",
        "a rollback believes that the hostnames of then are free",
        f"{_COMMAND}/domain/rollback.py",
        "if await tx.holder(HOSTNAMES, hostname) is not None]",
        "if False]",
        ("integration/test_rollback.py::test_what_cannot_be_restored_is_refused_with_every_reason",),
    ),
    Mutant(
        "F12",
        "an organisation is left by its last owner",
        _MEMBER,
        "    if owners == {member_id}:\n",
        "    if owners == set():\n",
        (
            f"{_MEMBERS}::test_the_last_owner_neither_leaves_nor_is_demoted_nor_erased",
            "integration/test_member_races.py::test_f12_of_two_owners_who_leave_at_once_one_stays",
        ),
    ),
    Mutant(
        "F12",
        "a person is a member twice",
        _MEMBER,
        "        if member.person_id == person_id:\n",
        "        if member_id == person_id:\n",
        (
            f"{_MEMBERS}::test_a_person_is_a_member_once",
            "integration/test_member_races.py::test_f12_an_e_mail_that_is_added_twice_at_once_is_one_person_and_one_member",
        ),
    ),
    Mutant(
        "F12",
        "a limit does not come to the append",
        _DECIDE,
        "            limits=limits_of(tx, decided.results),\n",
        "",
        (
            f"{_QUOTAS}::test_the_last_place_is_the_last[apps]",
            "integration/test_quota_races.py::test_f12_of_two_that_want_a_quotas_last_place_at_once_one_wins[apps]",
        ),
    ),
    Mutant(
        "F12",
        "a quota is believed as it was, not as it is when the command is appended",
        _QUOTA,
        '    org = await tx.read(Org, org_id or "")\n',
        '    org = await tx.read(Org, org_id or "")\n    tx.reads.aggregates.pop(org.id, None)\n',
        (f"{_QUOTAS}::test_f12_a_quota_that_another_replica_has_just_set_is_seen",),
    ),
    Mutant(
        "F12",
        "a deploy that needs more is held to no quota",
        f"{_COMMAND}/domain/deploy.py",
        "    await limit_wanted(tx, env.ids.org_id, before=env.state.wanted, after=Wanted.of(processes.values()))\n",
        "",
        (f"{_QUOTAS}::test_the_last_place_is_the_last[instances by deploy]",),
    ),
    Mutant(
        "F12",
        "who has more than a lowered quota may not even shrink",
        _QUOTA,
        "    if after.instances > before.instances and quota.instances is not None:\n",
        "    if quota.instances is not None:\n",
        (
            "unit/command/domain/test_quota.py::test_scaling_down_is_never_refused",
            f"{_QUOTAS}::test_a_lowered_quota_takes_nothing_away_and_lets_nothing_be_added[instances by scale]",
        ),
    ),
    Mutant(
        "F12",
        "what a deleted environment wanted is never free again",
        "libs/events/keelson/events/env.py",
        "            Release(instances_wanted_in(ids.org_id)),\n            Release(memory_wanted_in(ids.org_id)),\n",
        "",
        (f"{_QUOTAS}::test_what_an_environment_wanted_is_free_when_it_is_gone",),
    ),
    Mutant(
        "F12",
        "a deploy believes that the routes it read are all there are",
        f"{_COMMAND}/transaction.py",
        "            self.reads.scopes[scope] = state.version\n",
        "",
        ("integration/test_route_races.py::test_f12_a_deploy_sees_a_route_that_another_replica_has_just_made",),
    ),
    Mutant(
        "F12",
        "a decision forgets what its handler limited",
        _DECIDE,
        "            limits=limits_of(tx, decided.results),\n",
        "",
        (f"{_VAULT}::test_f12_the_last_place_is_given_once_and_the_limits_own_refusal_to_all_others",),
    ),
    Mutant(
        "F12",
        "what a bundle wants less of later loosens the limit that it passed before",
        f"{_COMMAND}/limits.py",
        "return _Own(finally_.held - then.held, finally_.amount - then.amount)",
        "return finally_",
        ("unit/command/test_transaction.py::test_f12_what_a_later_command_wants_less_of_does_not_loosen_a_limit",),
    ),
    Mutant(
        "F14",
        "what is shown once is kept, and shown again",
        f"{_COMMAND}/answers.py",
        "    names = once_only(type(result))\n",
        "    names: tuple[str, ...] = ()\n",
        (f"{_VAULT}::test_f14_what_is_shown_once_is_in_the_first_answer_alone",),
    ),
    Mutant(
        "F6",
        "an append in doubt is a defect of ours",
        f"{_COMMAND}/routes.py",
        "    except AppendUnavailableError:\n",
        "    except ZeroDivisionError:\n",
        ("integration/test_command_faults.py::test_f6_what_is_in_doubt_when_its_epoch_ends_means_503",),
    ),
    Mutant(
        "F13",
        "a decision that lost a race is not made again",
        _DECIDE,
        "MAX_ATTEMPTS = 20\nTRIES_A_TURN = 5\n",
        "MAX_ATTEMPTS = 1\nTRIES_A_TURN = 1\n",
        (f"{_RACES}::test_f13a_a_change_on_stale_state_is_decided_again_too",),
    ),
    Mutant(
        "F13a",
        "a refusal on stale state is believed",
        _DECIDE,
        "        if confirmation.moved:\n",
        "        if False:\n",
        (f"{_RACES}::test_f13a_nothing_is_answered_from_a_stale_cache",),
    ),
    Mutant(
        "F14a",
        "a key is looked up before the handler runs, and never again",
        _DECIDE,
        "        confirmation = await confirm(self._pool, asked.key, tx.reads)\n",
        "        confirmation = await confirm(self._pool, None, tx.reads)\n",
        (f"{_RACES}::test_f14a_a_repeated_delete_gets_its_stored_answer[repeated_deletes_are_answered_alike]",),
    ),
    Mutant(
        "F15",
        "another request under a key gets the first one's answer",
        _DECIDE,
        "        if known.request_hash != asked.request_hash:\n",
        "        if False:\n",
        (f"{_RACES}::test_f15_a_key_of_another_request_is_refused",),
    ),
    Mutant(
        "F15",
        "all actors share their keys",
        _DECIDE,
        "IdempotencyKey(actor.type, actor.id, submission.name, key)",
        'IdempotencyKey("", "", submission.name, key)',
        (f"{_RACES}::test_f15_other_actors_and_other_commands_have_keys_of_their_own",),
    ),
    Mutant(
        "F12",
        "a node's memory is promised without a limit",
        "services/command/keelson/command/domain/instance.py",
        "    limit_memory(tx, node, node.state.memory_bytes)\n",
        "",
        ("integration/test_node_races.py::test_f12_of_two_instances_for_the_last_memory_of_a_node_one_is_placed",),
    ),
    Mutant(
        "F12",
        "an environment goes under its instances",
        "services/command/keelson/command/domain/env.py",
        "    if await tx.held(instances_of(env.id)):\n",
        "    if False:\n",
        ("integration/test_node_races.py::test_f12_nothing_goes_under_an_instance[env]",),
    ),
    Mutant(
        "F12",
        "a node goes under its instances",
        "services/command/keelson/command/domain/node.py",
        "    if await tx.held(memory_of(node.id)):\n",
        "    if False:\n",
        ("integration/test_node_races.py::test_f12_nothing_goes_under_an_instance[node]",),
    ),
    Mutant(
        "F12",
        "what an instance held is not given back",
        "libs/events/keelson/events/instance.py",
        "        return (Release(memory_of(ids.node_id)), Release(instances_of(ids.env_id)))\n",
        "        return ()\n",
        ("integration/test_node_races.py::test_f12_of_two_instances_for_the_last_memory_of_a_node_one_is_placed",),
    ),
)
