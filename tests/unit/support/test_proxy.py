"""The proxy of the tests does what it says; tests of faults rest on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from support.proxy import Direction, Fate, Proxy, running_proxy
from support.waiting import eventually


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.got = b""
        self.begun = 0
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo one connection."""
        self.begun += 1
        with suppress(ConnectionError):
            while data := await reader.read(100):
                self.got += data
                writer.write(data)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.ended += 1


@asynccontextmanager
async def running_echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        async with running_proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
            yield echo, proxy
        await eventually(lambda: echo.ended == echo.begun)


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_bytes_flow_both_ways_and_so_does_the_end() -> None:
    async with running_echo() as (_, proxy):
        reader, writer = await connect(proxy)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()


async def test_a_reply_can_be_held_back_and_lost() -> None:
    async with running_echo() as (echo, proxy):
        reader, writer = await connect(proxy)
        proxy.to_client.hold()
        writer.write(b"commit")
        await eventually(lambda: echo.got == b"commit" and proxy.to_client.held_bytes == 6)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        proxy.to_client.release()
        writer.close()


async def test_a_request_can_arrive_after_its_sender_was_cut_off() -> None:
    async with running_echo() as (echo, proxy):
        _, writer = await connect(proxy)
        proxy.to_server.hold()
        writer.write(b"commit")
        await eventually(lambda: proxy.to_server.held_bytes == 6)
        proxy.cut_clients()
        assert echo.got == b""
        proxy.to_server.release()
        await eventually(lambda: echo.got == b"commit" and echo.ended == 1)
        writer.close()


async def test_what_was_held_can_stay_behind_while_the_rest_flows() -> None:
    async with running_echo() as (echo, proxy):
        late_reader, late = await connect(proxy)
        proxy.to_server.hold()
        late.write(b"late")
        await eventually(lambda: proxy.to_server.held_bytes == 4)
        release_late = proxy.to_server.strand()
        reader, writer = await connect(proxy)
        writer.write(b"early")
        assert await reader.readexactly(5) == b"early"
        release_late()
        assert await late_reader.readexactly(4) == b"late"
        assert echo.got == b"earlylate"
        late.close()
        writer.close()


async def test_what_is_swallowed_is_lost_and_nobody_notices() -> None:
    async with running_echo() as (echo, proxy):
        reader, writer = await connect(proxy)
        proxy.to_server.swallow()
        writer.write(b"lost")
        await eventually(lambda: proxy.to_server.swallowed_bytes == 4)
        proxy.to_server.release()
        writer.write(b"found")
        assert await reader.readexactly(5) == b"found"
        assert echo.got == b"found"
        writer.close()


async def test_new_connections_can_be_refused_and_a_delay_added() -> None:
    async with running_echo() as (_, proxy):
        proxy.refuses = True
        reader, writer = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        proxy.refuses = False
        proxy.to_server.delay_s = 0.05
        started = asyncio.get_running_loop().time()
        reader, writer = await connect(proxy)
        writer.write(b"x")
        await reader.readexactly(1)
        assert asyncio.get_running_loop().time() - started >= 0.05
        assert proxy.accepted == 2
        writer.close()


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
@pytest.mark.parametrize("resets", [True, False])
async def test_one_connection_can_be_cut_at_any_byte(cut: int, *, resets: bool) -> None:
    async with running_echo() as (echo, proxy):
        whole = proxy.fate
        proxy.fate = lambda: Fate(whole().target, Direction(cut_after_bytes=cut, resets=resets))
        reader, writer = await connect(proxy)
        proxy.fate = whole
        other_reader, other = await connect(proxy)
        writer.write(b"hello")
        got = await read_to_the_end(reader)
        assert b"hello"[:cut].startswith(got)
        assert resets or len(got) == cut
        other.write(b"still here")
        assert await other_reader.readexactly(10) == b"still here"
        await eventually(lambda: echo.ended == 1)
        other.close()
        writer.close()


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    got = b""
    with suppress(ConnectionResetError):
        while data := await reader.read(100):
            got += data
    return got


async def test_a_connection_can_lead_elsewhere() -> None:
    async with running_echo() as (echo, proxy), running_echo() as (other, other_proxy):
        proxy.fate = lambda: Fate(("127.0.0.1", other_proxy.port), proxy.to_client)
        reader, writer = await connect(proxy)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert (echo.got, other.got) == (b"", b"hello")
        writer.close()


def test_a_url_leads_through_the_proxy() -> None:
    proxy = Proxy("database", 5432, asyncio.TaskGroup())
    proxy.port = 7
    assert proxy.url("postgresql://u:p%40@database:5432/db?x=1") == "postgresql://u:p%40@127.0.0.1:7/db?x=1"
