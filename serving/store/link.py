"""One connection to Redis for commands that are sent as bytes; answers come in the order of the commands.

The client opens it, so that addresses, Sentinels, TLS and credentials are the client's affair. After that its machinery
for each command, which costs several times what a look-up does, is not used.
"""

import asyncio
from collections import deque
from typing import Any

from serving.store.connecting import Client

try:
    import hiredis
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"Redis needs its parser: {error}; pip install 'headway[redis]'") from error


class Link(asyncio.Protocol):
    """A connection that is opened when it is first used, and again after it was lost. Use it on one event loop."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self._transport: asyncio.Transport | None = None
        self._opened: Any = None  # the client's connection: its end would be the end of the transport
        self._opening = asyncio.Lock()
        self._parser = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()

    async def send(self, command: bytes) -> Any:
        """Returns the answer to a command. Raises ConnectionError, and whatever the server says is an error.

        Ended in the middle, it closes the connection, so that the late answer is nobody's."""
        if self._transport is None:
            async with self._opening:
                if self._transport is None:
                    await self._open()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._transport.write(command)  # type: ignore[union-attr]
        try:
            return await answer
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection. Whoever waits for an answer gets a ConnectionError; the next command opens another."""
        self._lose("the connection was closed")

    async def _open(self) -> None:
        connection = self._client.connection_pool.make_connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._opened, self._transport = connection, connection._writer.transport
        self._parser = hiredis.Reader()
        self._transport.set_protocol(self)
        self._transport.resume_reading()  # the client's protocol may have paused it

    # -- the transport's calls --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        try:
            while (answer := self._parser.gets()) is not False:
                if not isinstance(answer, hiredis.PushNotification):  # nobody asked for those
                    self._settle(answer)
        except hiredis.ProtocolError as error:
            self._lose(f"the server sent what is no answer: {error}")

    def eof_received(self) -> None:
        self._lose("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error or "the server closed the connection"))

    def _settle(self, answer: Any) -> None:
        if not self._waiting:
            self._lose("the server sent an answer to nothing")
            return
        asked = self._waiting.popleft()
        if asked.done():
            return
        if isinstance(answer, Exception):
            asked.set_exception(answer)
        else:
            asked.set_result(answer)

    def _lose(self, why: str) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.set_protocol(asyncio.Protocol())  # what it still has to tell concerns nobody
        transport.abort()
        self._opened._reader = self._opened._writer = self._opened = None
        waiting, self._waiting = self._waiting, deque()
        for asked in waiting:
            if not asked.done():
                asked.set_exception(ConnectionError(why))
