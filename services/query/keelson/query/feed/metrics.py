"""The metrics of the change feed."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

STREAMS = Gauge("keelson_feed_streams", "Streams and long polls that are open")
SENT_EVENTS = Counter("keelson_feed_sent_events_total", "Events told to streams")
SENT_BYTES = Counter("keelson_feed_sent_bytes_total", "Bytes of events told to streams")
ENDED = Counter("keelson_feed_ended_total", "Streams that the service ended", ("why",))
REFUSED = Counter("keelson_feed_refused_total", "Streams and long polls refused, and told to come again", ("why",))
CATCH_UPS = Counter("keelson_feed_catch_up_reads_total", "Statements for streams that are behind the ring")
RING_EVENTS = Gauge("keelson_feed_ring_events", "Events that the ring holds")
RING_BYTES = Gauge("keelson_feed_ring_bytes", "What they take, about")
LAG = Gauge("keelson_feed_lag_events", "Events of the log that had not arrived in the ring at the last look")
ARRIVED = Counter("keelson_feed_arrived_events_total", "Events of the log that arrived in the ring")

# Why a service ends a stream.
SLOW, RIGHTS, RESYNC, STOP = (ENDED.labels(why) for why in ("slow", "rights", "resync", "stop"))

# Why one is refused: of whom there are too many, or that it could not be told in time whether it may be let in.
REFUSED_ALL, REFUSED_ORGANISATIONS, REFUSED_ONE, REFUSED_LATE = (
    REFUSED.labels(why) for why in ("all", "organisations", "one", "late")
)


class Tally:
    """What was told since the last time that it was counted: counters take a lock, and streams are many."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0

    def count(self) -> None:
        """Count it."""
        SENT_EVENTS.inc(self.events)
        SENT_BYTES.inc(self.bytes)
        self.events = self.bytes = 0


TALLY = Tally()


def watch_feed(streams: Callable[[], int], ring_events: Callable[[], int], ring_bytes: Callable[[], int]) -> None:
    """Show what there is, from now on."""
    STREAMS.set_function(streams)
    RING_EVENTS.set_function(ring_events)
    RING_BYTES.set_function(ring_bytes)
