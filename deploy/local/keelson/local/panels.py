"""What the dashboard shows: graphs in sections, in the order in which one asks."""

from typing import NamedTuple

# Requests that somebody's work depends on.
_WORK = 'route!~"/readyz|/healthz|/metrics|/openapi.json"'
_PER = "[$__rate_interval]"


class Line(NamedTuple):
    """One query of a panel, and what its lines are called."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """A graph over time; `unit` is Grafana's word for one."""

    title: str
    question: str
    unit: str
    lines: tuple[Line, ...]


def _rate(metric: str, by: str) -> tuple[Line, ...]:
    labels = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return (Line(f"sum by ({by}) (rate({metric}{_PER}))", labels),)


def _quantiles(metric: str, selector: str, by: str) -> tuple[Line, ...]:
    """Give the median and the slowest hundredth of a histogram."""
    return tuple(
        Line(
            f"histogram_quantile({quantile}, sum by ({by}, le) (rate({metric}_bucket{selector}{_PER})))",
            f"{{{{{by}}}}} p{quantile * 100:g}",
        )
        for quantile in (0.5, 0.99)
    )


def _mean(metric: str, by: str) -> tuple[Line, ...]:
    return (
        Line(f"sum by ({by}) (rate({metric}_sum{_PER})) / sum by ({by}) (rate({metric}_count{_PER}))", f"{{{{{by}}}}}"),
    )


SECTIONS: dict[str, tuple[Panel, ...]] = {
    "Is it well?": (
        Panel("Replicas", "How many of each service answer?", "none", (Line("sum by (job) (up)", "{{job}}"),)),
        Panel(
            "Answers that fail",
            "Which part of a service's answers is 5xx? 503: the database; 504: a wait that ran out; others: defects.",
            "percentunit",
            (
                Line(
                    f'sum by (job, status) (rate(keelson_http_requests_total{{{_WORK}, status=~"5.."}}{_PER}))'
                    f" / on (job) group_left () sum by (job) (rate(keelson_http_requests_total{{{_WORK}}}{_PER}))",
                    "{{job}} {{status}}",
                ),
            ),
        ),
        Panel(
            "Lag",
            "How old is what a projection's views do not show yet?",
            "s",
            (Line("max by (projection) (keelson_projection_lag_seconds)", "{{projection}}"),),
        ),
        Panel(
            "Projections that go on",
            "Is one stopped, or behind the schema (0)?",
            "none",
            (Line("min by (projection) (keelson_projection_running)", "{{projection}}"),),
        ),
        Panel(
            "Projections that are held",
            "Does a replica run each? It should be 1; 0 while it is stopped.",
            "none",
            (Line("sum by (projection) (keelson_projection_held)", "{{projection}}"),),
        ),
        Panel(
            "Versions",
            "What runs? Two while a new one is rolled out.",
            "none",
            (Line("count by (job, version) (keelson_build_info)", "{{job}} {{version}}"),),
        ),
    ),
    "Requests": (
        Panel("Requests", "How many?", "reqps", _rate(f"keelson_http_requests_total{{{_WORK}}}", "job")),
        Panel(
            "Commands: time to answer",
            "Waits for views included.",
            "s",
            _quantiles("keelson_http_request_seconds", f'{{job="command", {_WORK}}}', "route"),
        ),
        Panel(
            "Queries: time to answer",
            "Waits for views included.",
            "s",
            _quantiles("keelson_http_request_seconds", f'{{job="query", {_WORK}}}', "route"),
        ),
        Panel("Refusals", "What is refused, and why?", "reqps", _rate("keelson_http_problems_total", "job, code")),
        Panel(
            "Told to come again later",
            "Does an actor ask above its rate, or somebody guess at credentials?",
            "reqps",
            _rate("keelson_rate_limited_total", "job, of"),
        ),
        Panel(
            "Waits for positions",
            "How long do Prefer: wait and min_position wait, where they must?",
            "s",
            _quantiles("keelson_position_wait_seconds", "", "reached"),
        ),
        Panel(
            "In flight",
            "Do requests pile up?",
            "none",
            (Line("sum by (job) (keelson_http_in_flight)", "{{job}}"),),
        ),
    ),
    "The log": (
        Panel(
            "Events written",
            "By the head, and by the replicas that appended them.",
            "cps",
            (
                Line(f"max(rate(keelson_log_head{_PER}))", "head"),
                Line(f"sum by (instance) (rate(keelson_append_events_total{_PER}))", "{{instance}}"),
            ),
        ),
        Panel(
            "Decisions",
            "What becomes of them? moved: a conflict; taken, over_limit: claims.",
            "cps",
            _rate("keelson_append_decisions_total", "outcome"),
        ),
        Panel(
            "Decided again",
            "Who was first: somebody in the same process, or another replica?",
            "cps",
            _rate("keelson_command_reruns_total", "cause"),
        ),
        Panel(
            "Append groups: time",
            "How long does one take: the disk, or a wait for the head?",
            "s",
            _quantiles("keelson_append_group_seconds", "", "instance"),
        ),
        Panel(
            "Append groups: size",
            "How many decisions share a commit, in the mean?",
            "none",
            _mean("keelson_append_group_decisions", "instance"),
        ),
        Panel(
            "Wait for the head, and failures",
            "Which part of the time does a writer wait for the head? How many groups come to no outcome?",
            "none",
            (
                Line(f"rate(keelson_append_lock_wait_seconds_total{_PER})", "{{instance}} waits"),
                Line(f"sum by (kind) (rate(keelson_append_failures_total{_PER}))", "{{kind}} a second"),
            ),
        ),
    ),
    "The views": (
        Panel(
            "Lag in events",
            "How far behind the head is each projection?",
            "none",
            (Line("max by (projection) (keelson_projection_lag_events)", "{{projection}}"),),
        ),
        Panel("Events applied", "How fast?", "cps", _rate("keelson_projection_events_total", "projection")),
        Panel(
            "Pages: time",
            "From a page read to its commit.",
            "s",
            _quantiles("keelson_projection_page_seconds", "", "projection"),
        ),
    ),
    "The processes": (
        Panel(
            "Event loop",
            "How late is it?",
            "s",
            _quantiles("keelson_event_loop_delay_seconds", "", "instance"),
        ),
        Panel(
            "CPU",
            "How many cores does each take?",
            "none",
            (Line(f"rate(process_cpu_seconds_total{_PER})", "{{job}} {{instance}}"),),
        ),
        Panel("Memory", "", "bytes", (Line("process_resident_memory_bytes", "{{job}} {{instance}}"),)),
        Panel(
            "Connections in use",
            "Which part of a pool is lent?",
            "percentunit",
            (
                Line(
                    '(keelson_pool_connections{state="open"} - ignoring (state) keelson_pool_connections{state="idle"})'
                    " / ignoring (state) keelson_pool_max_connections",
                    "{{job}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "Callers that wait for a connection",
            "Is a pool used up?",
            "none",
            (Line("keelson_pool_waiting", "{{job}} {{instance}}"),),
        ),
        Panel(
            "Listeners lost",
            "How often is a listener's connection replaced?",
            "cps",
            _rate("keelson_listener_lost_total", "job"),
        ),
    ),
    "Streams": (
        Panel(
            "Open streams",
            "How many streams and reads that wait are open?",
            "none",
            (Line("keelson_feed_streams", "{{instance}}"),),
        ),
        Panel(
            "Events told",
            "How much is told, over all streams?",
            "cps",
            (Line(f"sum by (instance) (rate(keelson_feed_sent_events_total{_PER}))", "{{instance}}"),),
        ),
        Panel(
            "Lag of the feed",
            "How much of the log had not arrived in a replica?",
            "none",
            (Line("keelson_feed_lag_events", "{{instance}}"),),
        ),
        Panel("Streams ended", "Why?", "cps", _rate("keelson_feed_ended_total", "why")),
        Panel(
            "Streams refused",
            "Are there too many for the replicas, or has one organisation its share?",
            "cps",
            _rate("keelson_feed_refused_total", "why"),
        ),
        Panel(
            "Reads of those behind",
            "Is the ring too small?",
            "cps",
            _rate("keelson_feed_catch_up_reads_total", "instance"),
        ),
    ),
    "What converges": (
        Panel(
            "Instances",
            "How many are wanted, how many run, are ready, and find no room?",
            "none",
            (Line("max by (standing) (keelson_scheduler_instances)", "{{standing}}"),),
        ),
        Panel(
            "Rollouts and deploys",
            "What is on its way?",
            "none",
            (
                Line("max(keelson_scheduler_rollouts)", "rollouts"),
                Line("max(keelson_scheduler_open_deploys)", "open deploys"),
            ),
        ),
        Panel(
            "Nodes",
            "How many are there, by state?",
            "none",
            (Line("max by (state) (keelson_scheduler_nodes)", "{{state}}"),),
        ),
        Panel(
            "Actions of the scheduler",
            "What does it do, and what becomes of it?",
            "cps",
            _rate("keelson_scheduler_actions_total", "action, outcome"),
        ),
        Panel(
            "Lag of the scheduler",
            "How much of the log has it not seen?",
            "none",
            (Line("keelson_scheduler_lag_events", "{{instance}}"),),
        ),
    ),
}
