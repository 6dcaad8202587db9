"""A server between client and Valkey that passes bytes on, until it is told to hang, to lie, or to break off."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tests.cache.stories import turns

PIECE = 1 << 16


class Between:
    """Passes on what goes to and fro.

    alter: makes of the n-th piece of answers, counted from 1 over all connections, what the client gets. None: the
        connection breaks off.
    """

    def __init__(self, server: Path, alter: Callable[[int, bytes], bytes | None]) -> None:
        self.alter = alter
        self.pieces = 0
        self.asked = 0  # pieces that went to the server
        self.flows = asyncio.Event()  # while it is not set, answers are kept back
        self.flows.set()
        self._server = server
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with closing(writer):  # also if the test ends, and cancels this task, while a client connects
            to_read, to_write = await asyncio.open_unix_connection(str(self._server))
            with closing(to_write):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, to_write))
                    group.create_task(self._answer(to_read, writer))

    async def end(self) -> None:
        """Waits until the connections that clients have closed are closed everywhere."""
        self.flows.set()
        await turns()  # a connection that was accepted last has a task after some of them
        if self._serving:
            await asyncio.wait(self._serving, timeout=10)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(PIECE):
                self.asked += 1
                writer.write(piece)
        except ConnectionError:
            pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            await self.flows.wait()
            self.pieces += 1
            altered = self.alter(self.pieces, piece)
            if altered is None:
                break
            writer.write(altered)
        writer.close()


@asynccontextmanager
async def between(
    folder: Path, server: Path, alter: Callable[[int, bytes], bytes | None] = lambda number, piece: piece
) -> AsyncIterator[tuple[str, Between]]:
    """Yields the URL of such a server, and the server."""
    middle = Between(server, alter)
    path = folder / "between.sock"
    listener = await asyncio.start_unix_server(middle.serve, str(path))
    try:
        yield f"unix://{path}", middle
    finally:
        listener.close()
        await middle.end()
        path.unlink()
