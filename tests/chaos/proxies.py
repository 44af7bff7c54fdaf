"""Proxies between the processes, which hold a message back until a test has done its worst.

They know HTTP and bytes, and nothing of what runs on either side of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["request", "answer", "half"]
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    head: bytes
    body: bytes
    client: str = ""
    """The address that it came from."""


@dataclass
class Hold:
    """The next request like this is held: before it is passed on, before its answer is passed
    back, or in the middle of that answer."""

    method: str
    path: str
    phase: Phase
    loop: asyncio.AbstractEventLoop
    reached: threading.Event = field(default_factory=threading.Event)
    request: Request | None = None
    _freed: asyncio.Event = field(default_factory=asyncio.Event)
    _dropped: bool = False

    def wait(self, seconds: float = 60) -> Request:
        """The request, as soon as it is held; AssertionError where none comes."""
        assert self.reached.wait(seconds), f"no {self.method} {self.path} within {seconds} s"
        assert self.request is not None
        return self.request

    def go_on(self) -> None:
        self.loop.call_soon_threadsafe(self._freed.set)

    def drop(self) -> None:
        """Cut the connection: the client gets no answer."""
        self._dropped = True
        self.go_on()

    async def hold(self, request: Request) -> None:
        """Raises ConnectionError where the test dropped it."""
        self.request = request
        self.reached.set()
        await self._freed.wait()
        if self._dropped:
            raise ConnectionAbortedError


class Loop:
    """An event loop in a thread of its own, for servers beside a test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def listen(
        self,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
        host: str = "127.0.0.1",
    ) -> tuple[asyncio.Server, int]:
        """Start a server on a free port of the address; returns it with the port."""

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self.loop.create_task(serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        async def start() -> asyncio.Server:
            return await asyncio.start_server(begin, host, 0)

        server = asyncio.run_coroutine_threadsafe(start(), self.loop).result(10)
        return server, int(server.sockets[0].getsockname()[1])

    def close(self, server: asyncio.Server) -> None:
        self.loop.call_soon_threadsafe(server.close)


class HttpProxy:
    """In front of one HTTP server; ``url`` is what its clients are told.

    ``upstream`` may change while it runs. ``lost`` says which answers never arrive; requests that
    it chose are kept in ``losses``, all in ``requests``.
    """

    def __init__(self, loop: Loop, upstream_port: int, host: str = "127.0.0.1") -> None:
        self.upstream = upstream_port
        self.lost: Callable[[Request], bool] = lambda _: False
        self.losses: list[Request] = []
        self.requests: list[Request] = []
        self._holds: list[Hold] = []
        self._held: list[Hold] = []
        self._loop = loop
        self._server, self.port = loop.listen(self._serve, host)
        self.url = f"http://{host}:{self.port}"

    def hold(self, method: str, path: str, phase: Phase) -> Hold:
        """Hold the next request whose path matches the pattern."""
        made = Hold(method, path, phase, self._loop.loop)
        self._holds.append(made)
        return made

    def close(self) -> None:
        for hold in self._held:
            hold.drop()
        self._loop.close(self._server)

    def _taken(self, request: Request, *phases: Phase) -> Hold | None:
        for hold in self._holds:
            like = hold.method == request.method and re.search(hold.path, request.path)
            if like and hold.phase in phases:
                self._holds.remove(hold)
                self._held.append(hold)
                return hold
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            request = await _request(reader, writer.get_extra_info("peername")[0])
            self.requests.append(request)
            if hold := self._taken(request, "request"):
                await hold.hold(request)
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            try:
                up_writer.write(request.head + request.body)
                await self._answer(request, up_reader, writer)
            finally:
                up_writer.close()
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if hold := self._taken(request, "answer", "half"):
            answer = await reader.read(-1)
            passed = len(answer) // 2 if hold.phase == "half" else 0
            writer.write(answer[:passed])
            await writer.drain()
            await hold.hold(request)
            writer.write(answer[passed:])
        elif self.lost(request):
            await reader.read(-1)
            self.losses.append(request)
            raise ConnectionAbortedError
        else:
            while chunk := await reader.read(2**16):
                writer.write(chunk)
                await writer.drain()


async def _request(reader: asyncio.StreamReader, client: str) -> Request:
    """One request, which asks the server to close the connection behind its answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head[:-4].split(b"\r\n")
    method, path, _ = line.decode("latin-1").split(" ", 2)
    kept = [each for each in fields if not each.lower().startswith((b"connection:", b"expect:"))]
    names = {each.partition(b":")[0].lower(): each.partition(b":")[2].strip() for each in kept}
    body = b""
    if names.get(b"transfer-encoding", b"").lower() == b"chunked":
        while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
            body += await reader.readuntil(b"\r\n")
    elif length := int(names.get(b"content-length", b"0")):
        body = await reader.readexactly(length)
    head = b"\r\n".join([line, *kept, b"Connection: close", b"", b""])
    return Request(method, path, head, body, client)


class BytesProxy:
    """In front of any server; it can stand still, and it can be cut off."""

    def __init__(
        self, loop: Loop, connect: Callable[[], Awaitable[Opened]], host: str = "127.0.0.1"
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._last = ""
        self.stuck = threading.Event()
        """Whether a client has sent what was to be its last."""
        self._writers: set[asyncio.StreamWriter] = set()
        self.clients: set[str] = set()
        """The addresses that have come."""
        self._server, self.port = loop.listen(self._serve, host)

    @classmethod
    def to_socket(cls, loop: Loop, path: str, host: str = "127.0.0.1") -> BytesProxy:
        return cls(loop, lambda: asyncio.open_unix_connection(path), host)

    @classmethod
    def to_port(cls, loop: Loop, port: int, host: str = "127.0.0.1") -> BytesProxy:
        return cls(loop, lambda: asyncio.open_connection("127.0.0.1", port), host)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Nothing that a client sends arrives meanwhile."""
        self._loop.loop.call_soon_threadsafe(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.loop.call_soon_threadsafe(self._flowing.set)

    def stick_after(self, last: str) -> None:
        """The next client that sends this says nothing more; it hears what is answered."""
        self._last = last

    def close(self) -> None:
        """Take no more connections, and cut those that there are."""
        self._loop.close(self._server)
        for writer in list(self._writers):
            self._loop.loop.call_soon_threadsafe(writer.transport.abort)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.add(writer.get_extra_info("peername")[0])
        try:
            up_reader, up_writer = await self._connect()
        except OSError:
            writer.close()
            return
        self._writers |= {writer, up_writer}
        await asyncio.gather(
            self._pump(reader, up_writer, held=True), self._pump(up_reader, writer, held=False)
        )
        self._writers -= {writer, up_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(2**16):
                if held:
                    await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
                if held and self._last and re.search(self._last, chunk.decode("latin-1")):
                    self._last = ""
                    self.stuck.set()
                    await asyncio.Event().wait()
        writer.close()
