"""One client's stream: an answer without end, whatever its source. The one driver of all streams.

There is no queue and no second task for a client: at most one chunk is on its way to it, and the next is read when the
client has taken it. A client that does not take it in time is cut off; its last cursor stays good (F28).
"""

import asyncio
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from keelson.events.ids import Position
from keelson.log.database import UNAVAILABLE
from keelson.query.feed import frames, metrics
from keelson.query.feed.feed import Feed
from keelson.query.feed.hub import MustEndError, Subscription, do_nothing, wake
from keelson.query.feed.refusals import refused
from keelson.query.feed.source import Source, SourceEndedError
from keelson.query.feed.watches import Watch
from keelson.service.credentials import Caller
from keelson.service.streaming import SlowClientError, StreamedBody, forget_credential, hold

_HEADERS = (
    (b"content-type", frames.MEDIA_TYPE.encode("ascii")),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

# While the database is away, what is in the ring is told, and the rest is asked for this often.
RETRY_S = 0.5


class StreamResponse(Response):
    """The answer that tells a client all that a source has to tell, until either leaves or must end."""

    def __init__(self, feed: Feed, caller: Caller, source: Source) -> None:
        self._feed = feed
        self._caller = caller
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer. Raises Problem and UnauthenticatedError as long as nothing was answered."""
        forget_credential(scope)
        hold(scope)
        feed = self._feed
        with (
            feed.admitted(self._caller),
            feed.hub.subscribe(self._source.sought) as subscription,
            feed.guard.watching(self._caller, subscription.interrupt) as watch,
        ):
            await feed.guard.confirm(watch)
            await self._source.begin(subscription)
            if subscription.resync is not None:
                # The source may have begun in that epoch already, and so may its client: it has nothing to throw away.
                raise refused("Another epoch has just begun")
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            if scope["method"] != "HEAD":
                await _Telling(feed, self._source, subscription, watch, StreamedBody(scope, feed.send_timeout_s)).run()
            await send({"type": "http.response.body", "body": b""})


class _Telling:
    """The body of one stream, while it lasts."""

    __slots__ = ("_body", "_feed", "_is_placed", "_loop", "_said_at", "_source", "_subscription", "_watch")

    def __init__(
        self, feed: Feed, source: Source, subscription: Subscription, watch: Watch, body: StreamedBody
    ) -> None:
        self._feed = feed
        self._source = source
        self._subscription = subscription
        self._watch = watch
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._said_at = self._loop.time()
        self._is_placed = False

    async def run(self) -> None:
        """Tell until the end, and say what the end is about."""
        self._body.on_lost(self._subscription.interrupt)
        self._watch.wake = self._end_at_once
        self._subscription.at_once = self._tell_at_once
        self._subscription.hurry = self._hurry
        try:
            await self._say(frames.write_retry())
            with suppress(SourceEndedError):
                await self._tell()
                await self._say_last_words()
            await self._body.drained()  # whoever ends the answer would wait for the client without a bound
        except SlowClientError:
            metrics.SLOW.inc()
            self._body.abort()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Have nobody hold what was told to a client that is gone, until garbage is collected."""
        self._watch.wake = self._subscription.interrupt
        self._subscription.at_once = wake
        self._subscription.hurry = do_nothing
        self._body.on_lost(do_nothing)

    async def _tell(self) -> None:
        """Tell all that there is, then wait for more; say where one is once that is told, and after silence."""
        while not self._must_end:
            if self._body.is_full:  # filled while the task slept: no client is waited for in sleep, without a bound
                await self._body.drained()
                continue
            data = await self._read()
            if not await self._watch.settled() or self._must_end_now:
                return  # what was read must not be told any more
            data = data or self._place()
            if data:
                await self._say(data)
            if not self._source.is_caught_up:
                await asyncio.sleep(0)  # others have their turn, also where nothing of all this had to be waited for
            elif not (data or self._must_end):
                await self._source.wait(max(self._feed.bookmark_interval_s - self._silent_for_s(), 0))

    def _place(self) -> bytes:
        """Give what says where the client is, if it is time to: once it has caught up, and after silence."""
        is_new = self._source.is_caught_up and not self._is_placed
        is_silent = self._silent_for_s() >= self._feed.bookmark_interval_s
        if not (is_new or is_silent):
            return b""
        self._is_placed = self._is_placed or is_new
        return self._source.bookmark() or (frames.COMMENT if is_silent else b"")

    def _tell_at_once(self, quiet_to: Position) -> bool:
        """Tell what has just arrived while the task sleeps; false where something has to be waited for."""
        if self._must_end or self._watch.is_doubted or self._body.is_full:
            return False
        data = self._source.read_at_once(quiet_to)
        if data is None:
            return False
        if data:
            self._body.write(data)
            self._said_at = self._loop.time()
        return not self._body.is_full

    async def _read(self) -> bytes:
        """Give what the source has to tell next; nothing, at once, when the stream must end while it is being read."""
        try:
            return await self._subscription.unless_interrupted(self._source.read())
        except MustEndError:
            return b""
        except UNAVAILABLE:
            if not self._must_end:
                await self._subscription.pause(RETRY_S)
            return b""

    async def _say_last_words(self) -> None:
        """End with what the client needs to come back: the place that it is at, or that there is none any more."""
        if not await self._watch.settled():
            metrics.RIGHTS.inc()
        elif self._body.is_lost:
            return
        elif self._subscription.resync is not None:
            metrics.RESYNC.inc()
            await self._say(frames.write_resync(self._subscription.resync.epoch, self._subscription.resync.reason))
        else:
            metrics.STOP.inc()
            if last := self._source.bookmark():
                await self._say(last)

    async def _say(self, data: bytes) -> None:
        await self._body.send(data)
        self._said_at = self._loop.time()

    @property
    def _must_end(self) -> bool:
        return self._subscription.is_interrupted or self._must_end_now

    @property
    def _must_end_now(self) -> bool:
        return self._watch.is_over or self._body.is_lost or self._subscription.resync is not None

    def _silent_for_s(self) -> float:
        return self._loop.time() - self._said_at

    def _hurry(self) -> None:
        """Have a client that is being waited for hold a service that stops no longer than any other (F33)."""
        self._body.hurry(self._feed.send_timeout_s)

    def _end_at_once(self) -> None:
        """End for want of rights: a client that is being waited for is cut off, so that it takes no second longer."""
        if self._body.is_full:
            self._body.abort()
        self._subscription.interrupt()
