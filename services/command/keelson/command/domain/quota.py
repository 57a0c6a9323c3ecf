"""Quotas: how much an organisation may have at most, held against the log in the append (ADR 11).

A limit is set by what takes more than there was, and by nothing else: whoever has more than a quota that was lowered
since may still shrink, rename, and deploy what needs no more.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Self

from keelson.command.domain.org import Org
from keelson.command.refusal import Refusal
from keelson.command.transaction import Transaction
from keelson.events.app import apps_of
from keelson.events.env import EnvProcess, envs_of, instances_wanted_in, memory_wanted_in
from keelson.events.org import Quota
from keelson.events.project import names_in as projects_of

Counted = Literal["projects", "apps", "envs"]

# What counts towards each quota, by the organisation.
_SCOPES = {
    "projects": projects_of,
    "apps": apps_of,
    "envs": envs_of,
    "instances": instances_wanted_in,
    "memory_bytes": memory_wanted_in,
}

# What any organisation may want at most: numbers of JSON are exact up to here, and a sum in the log holds a thousand
# times that. Only an environment that wants more than LARGE is held against it: millions of smaller ones stay below,
# and decisions that limit one scope cannot share an append group.
MAX_MEMORY_BYTES = 2**53
LARGE_BYTES = 2**40


class OverQuota(Refusal):
    """The organisation would have more than it may; how much that is, the append tells."""

    def __init__(self, quota: str, allowed: int, found: int | None = None) -> None:
        would = "" if found is None else f" and would have {found}"
        super().__init__("quota_exceeded", f"the quota {quota} allows the organisation {allowed}{would}")
        self._quota = quota
        self._allowed = allowed

    def told(self, found: int) -> "OverQuota":
        """Give the refusal with what would be."""
        return OverQuota(self._quota, self._allowed, found)


class Wanted(NamedTuple):
    """What an environment wants: replicas, and the memory of all of them."""

    instances: int
    memory_bytes: int

    @classmethod
    def of(cls, processes: Iterable[EnvProcess]) -> Self:
        """Give what these processes want."""
        each = [(process.replicas, process.replicas * process.memory_bytes) for process in processes]
        return cls(sum(replicas for replicas, _ in each), sum(memory_bytes for _, memory_bytes in each))

    @classmethod
    def scaled(cls, replicas: Mapping[str, int], memory_bytes: Mapping[str, int]) -> Self:
        """Give what so many replicas want, where each of a process needs so much memory."""
        return cls(sum(replicas.values()), sum(count * memory_bytes[process] for process, count in replicas.items()))


async def limit_count(tx: Transaction, org_id: str | None, counted: Counted) -> None:
    """Let the organisation hold no more of these than its quota, now that there will be one more."""
    quota = await _read_quota(tx, org_id)
    allowed: int | None = getattr(quota, counted)
    if allowed is not None:
        tx.limit(_SCOPES[counted](org_id), held=allowed, refusal=OverQuota(counted, allowed))


async def limit_wanted(tx: Transaction, org_id: str | None, *, before: Wanted, after: Wanted) -> None:
    """Let the organisation want no more than its quotas, where an environment will want more than before.

    Raises Refusal `quota_exceeded` for what no organisation may want.
    """
    quota = await _read_quota(tx, org_id)
    if after.instances > before.instances and quota.instances is not None:
        refusal = OverQuota("instances", quota.instances)
        tx.limit(instances_wanted_in(org_id), amount=quota.instances, refusal=refusal)
    if after.memory_bytes > before.memory_bytes:
        allowed = MAX_MEMORY_BYTES if quota.memory_bytes is None else min(quota.memory_bytes, MAX_MEMORY_BYTES)
        if after.memory_bytes > MAX_MEMORY_BYTES:
            raise OverQuota("memory_bytes", allowed, after.memory_bytes)
        if quota.memory_bytes is not None or after.memory_bytes > LARGE_BYTES:
            refusal = OverQuota("memory_bytes", allowed)
            tx.limit(memory_wanted_in(org_id), amount=allowed, refusal=refusal)


async def _read_quota(tx: Transaction, org_id: str | None) -> Quota:
    """Give an organisation's quota; the organisation joins the read set."""
    org = await tx.read(Org, org_id or "")
    return org.state.quota if org else Quota()
