"""The listener that a service hears the database by, shown in its metrics."""

from prometheus_client import Counter, Gauge

from keelson.log.epochs import Epochs
from keelson.log.listen import Listener
from keelson.service.settings import Settings

LOST = Counter(
    "keelson_listener_lost_total", "Times that the listener's connection was lost, or could not be had", ("service",)
)
CONNECTED = Gauge("keelson_listener_connected", "1 while the listener has a connection that listens", ("service",))


def service_listener(name: str, settings: Settings, epochs: Epochs, *channels: str) -> Listener:
    """Make the listener of the service of this name; whoever gets it runs it."""
    lost = LOST.labels(name)
    listener = Listener(
        settings.listen_database_url,
        *channels,
        application_name=f"keelson-{name}-listener",
        epochs=epochs,
        on_lost=lost.inc,
    )
    CONNECTED.labels(name).set_function(lambda: listener.connected)
    return listener
