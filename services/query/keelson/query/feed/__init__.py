"""The change feed: the log, filtered, told to whoever waits for it (ADR 0016).

`hub` is where the log arrives and readers sleep; `stream` drives one client's stream from any `Source`; `guard` ends
streams whose credentials are not good any more; `events` is the source that reads the log itself.
"""
