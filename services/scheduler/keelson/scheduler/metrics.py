"""Metrics of the scheduler, for Prometheus."""

from collections import Counter as Tally

from prometheus_client import Counter, Gauge, Histogram

from keelson.scheduler.domain.plan import Plan
from keelson.scheduler.domain.rollout import standing_of
from keelson.scheduler.domain.world import World

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

INSTANCES = Gauge(
    "keelson_scheduler_instances",
    "Instances wanted, running (ready or not), ready of them, and unplaced: wanted now, and no node has room",
    ("standing",),
)
ROLLOUTS = Gauge("keelson_scheduler_rollouts", "Processes of which something outdated runs or something is missing")
DEPLOYS = Gauge("keelson_scheduler_open_deploys", "Deploys that are queued or rolling")
NODES = Gauge("keelson_scheduler_nodes", "Nodes that have enrolled, by their state", ("state",))
POSITION = Gauge("keelson_scheduler_position", "The position of the log that the scheduler has come to")
LAG = Gauge("keelson_scheduler_lag_events", "The head at the last look minus that position")
PLAN_SECONDS = Histogram("keelson_scheduler_plan_seconds", "What making a plan took", buckets=_BUCKETS_S)
ACTIONS = Counter(
    "keelson_scheduler_actions_total",
    "Actions sent as commands, by what became of them; a conflict is what another had changed meanwhile",
    ("action", "outcome"),
)

_STATES = ("active", "draining", "disabled", "offline")


def acted(action: str, outcome: str) -> None:
    """Count an action."""
    ACTIONS.labels(action, outcome).inc()


def followed(position: int, head: int) -> None:
    """Show how far the scheduler has come."""
    POSITION.set(position)
    LAG.set(max(0, head - position))


def stands(world: World, made: Plan) -> None:
    """Show how the world stands; this costs as much as a plan."""
    standings = [standing_of(world, workload) for workload in world.all_workloads()]
    INSTANCES.labels("wanted").set(sum(each.wanted for each in standings))
    INSTANCES.labels("running").set(sum(len(each.running) for each in standings))
    INSTANCES.labels("ready").set(sum(len(each.ready) for each in standings))
    INSTANCES.labels("unplaced").set(sum(sum(each.values()) for each in made.unplaced.values()))
    ROLLOUTS.set(sum(bool(each.outdated) or len(each.current) != each.wanted for each in standings))
    DEPLOYS.set(len(world.deploys))
    states: Tally[str] = Tally(node.state for node in world.nodes.values() if node.state is not None)
    for state in _STATES:
        NODES.labels(state).set(states[state])
