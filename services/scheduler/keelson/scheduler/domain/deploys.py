"""How far a deploy is: rolling once it is seen, succeeded by what runs, failed when it came no further."""

from collections.abc import Collection, Iterator, Mapping

from keelson.events.instance import InstanceStatusChanged
from keelson.scheduler.domain.actions import DeployOutcome, Seen, SetDeployStatus
from keelson.scheduler.domain.model import Deploy, Env, Instance
from keelson.scheduler.domain.rollout import standing_of
from keelson.scheduler.domain.world import World

# Text of the API.
MAX_MESSAGE = 500


def advance(
    world: World, env: Env, overdue: Collection[str], unplaced: Mapping[str, int], going: Collection[str] = ()
) -> Iterator[SetDeployStatus]:
    """Take an environment's open deploy on, if it is due; `unplaced` are its instances without room, by process."""
    deploy = world.deploys.get(env.deploy_id or "")
    if deploy is None:
        return
    if deploy.status == "queued":
        yield _say(deploy, "rolling", f"release {deploy.release_number} begins to roll")
    elif has_arrived(world, env, going):
        yield _say(deploy, "succeeded", f"all of release {deploy.release_number} is ready, and nothing else runs")
    elif deploy.id in overdue:
        message = _why(world, env, unplaced)
        yield _say(deploy, "failed", "the deploy came no further", message)


def has_arrived(world: World, env: Env, going: Collection[str]) -> bool:
    """Whether what runs of an environment is its release, and all of it is ready; nodes `going` offline are gone."""
    for workload in world.workloads_of(env.id).values():
        standing = standing_of(world, workload, going)
        if any(each.revision.release_id != env.release_id for each in standing.running):
            return False
        if len(standing.ready) < standing.wanted:
            return False
    return True


def _say(deploy: Deploy, status: DeployOutcome, reason: str, message: str | None = None) -> SetDeployStatus:
    return SetDeployStatus(
        deploy=Seen(deploy.id, deploy.seq),
        status=status,
        message=message,
        reason=reason,
        cause=deploy.moved,
    )


def _why(world: World, env: Env, unplaced: Mapping[str, int]) -> str:
    """Say what keeps a deploy from success: of each process that is not there, the nearest reason."""
    parts = []
    for name, workload in sorted(world.workloads_of(env.id).items()):
        standing = standing_of(world, workload)
        ready = [each for each in standing.ready if each.revision.release_id == env.release_id]
        if len(ready) >= standing.wanted and not standing.outdated:
            continue
        text = f"{name}: {len(ready)} of {standing.wanted} ready"
        failures = [_tell(each, each.failure) for each in standing.current if each.failure and not each.is_ready]
        if failures:
            text += f", {failures[-1]}"
        elif unplaced.get(name):
            text += f", no node has room for {unplaced[name]} more of {env.processes[name].memory_bytes} bytes"
        parts.append(text)
    return "; ".join(parts)[:MAX_MESSAGE]


def _tell(instance: Instance, failure: InstanceStatusChanged) -> str:
    text = f"{instance.id} failed: {failure.reason_code}"
    if failure.exit_code is not None:
        text += f", exit code {failure.exit_code}"
    return f"{text} ({failure.message})" if failure.message else text
