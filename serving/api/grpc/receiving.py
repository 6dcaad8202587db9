"""Reads gRPC messages from the DATA frames of a connection: collects incomplete ones, cuts and inflates them.

The message of a unary call is passed on at once, without a task unless it is compressed. The bytes of a call with many
messages are kept until the next message is asked for; no credit is sent until then, which makes the client wait.
"""

from collections.abc import AsyncIterator
from functools import partial

from serving.api.admission.age import HERE
from serving.api.beside import beside
from serving.api.faults import CallFailed, Fault
from serving.api.grpc.call import Call, Head
from serving.api.grpc.message import CUT_OFF, ONE_MESSAGE, PREFIX_BYTES, message_coding, message_size
from serving.api.grpc.pending import fault
from serving.api.http2.connection import MAX_HEADER_BYTES, Http2Connection
from serving.api.http2.sending import CREDIT_STEP
from serving.protocol import http2
from serving.protocol.compression import inflate
from serving.protocol.errors import BadMessage, TooLarge

SMALL_BYTES = 4096  # a compressed message up to this size is inflated on the event loop


class GrpcReceiver(Http2Connection[Head]):
    """The receiving half of a gRPC connection.

    max_message_bytes: limit of one message, inflated, in bytes.
    heads: cache of decoded headers by header block, shared by all connections.
    """

    def __init__(
        self, *, max_message_bytes: int, connections: "set[Http2Connection[Head]]", heads: dict[bytes, Head]
    ) -> None:
        reader = http2.HeaderReader(Head, heads, MAX_HEADER_BYTES)
        # The window holds the largest message even while credit for the previous one has not been sent yet.
        super().__init__(reader, max_message_bytes + PREFIX_BYTES + CREDIT_STEP, connections)
        self._max_message_bytes = max_message_bytes
        self._age_ns = 0  # of the call whose headers were read last

    # -- methods of the subclass ------------------------------------------------------------------------------

    def _answer(self, call: Call, message: bytes) -> None:
        """Answers a unary call whose message is complete."""
        raise NotImplementedError

    def _may_arrive(self, call: Call) -> bool:
        """Returns whether the rest of a unary call's message may come; otherwise the call has been failed."""
        raise NotImplementedError

    def _fail(self, call: Call, fault: Fault, more: bytes = b"") -> None:
        """Ends the call with an error. Messages that are not sent yet are dropped. more: further trailers, encoded."""
        raise NotImplementedError

    # -- receiving --------------------------------------------------------------------------------------------

    def _read_head(self, block: bytes) -> Head:
        block, self._age_ns = HERE.split_block(block)
        return super()._read_head(block)

    def _refuse(self, id: int, error: BadMessage) -> None:
        call = self._streams[id] = Call(id, Head(()), self._stream_window, self._receive_window, 0)
        self._fail(call, fault(error, "headers"))

    def _take_bytes(self, stream: Call, payload: bytes) -> None:
        if stream.more is not None:
            self._keep(stream, payload)
            stream.more.set()
            return
        if stream.answering is not None:
            self._fail(stream, ONE_MESSAGE)
            return
        received: bytes | bytearray = payload
        if stream.received:
            self._keep(stream, payload)
            if self._streams.get(stream.id) is not stream:
                return
            received = stream.received
        try:
            size = message_size(received, self._max_message_bytes)
        except CallFailed as failed:
            self._fail(stream, failed.fault)
            return
        if size is None or len(received) < size:
            if received is payload and self._may_arrive(stream):
                self._keep(stream, payload)
        elif len(received) > size:
            self._fail(stream, ONE_MESSAGE)
        else:
            self._take_message(stream, received)

    def _keep(self, call: Call, payload: bytes) -> None:
        if call.received is None:
            call.received = bytearray()
        call.received += payload
        call.kept = len(call.received)
        self._weigh(call)

    def _take_message(self, call: Call, received: bytes | bytearray) -> None:
        """Takes the complete message of a unary call. received: the message with its prefix."""
        if call.arriving is not None:
            call.arriving.arrived()
        flag, size = received[0], len(received)
        message = received[PREFIX_BYTES:] if isinstance(received, bytes) else self._cut(call, received, size)
        if flag:
            call.answering = self._loop.create_task(self._answer_compressed(call, flag, message))
        else:
            self._answer(call, message)

    def _cut(self, call: Call, received: bytearray, size: int) -> bytes:
        """Cuts the first message, of `size` bytes with its prefix, off the kept bytes. Returns it without prefix."""
        message = bytes(memoryview(received)[PREFIX_BYTES:size])
        del received[:size]
        call.kept = len(received)
        self._weigh(call)
        return message

    def _end_of_bytes(self, stream: Call) -> None:
        if stream.more is not None:
            stream.more.set()
        elif stream.answering is None:
            self._fail(stream, CUT_OFF if stream.received else Fault(400, "the call has no message"))

    async def _messages(self, call: Call) -> AsyncIterator[bytes]:
        """Yields the messages of a call with many, each inflated. Raises CallFailed.

        Credit for a message is sent when the next one is asked for, so a client that sends faster than its requests are
        taken has to wait (backpressure).
        """
        more, received = call.more, call.received
        assert more is not None
        assert received is not None
        while True:
            size = message_size(received, self._max_message_bytes)
            if size is not None and size <= len(received):
                flag, message = received[0], self._cut(call, received, size)
                yield await self._inflated(call, flag, message) if flag else message
                if self._streams.get(call.id) is call:
                    self._credit(call, size)
            elif not call.is_over:
                more.clear()
                await more.wait()
            elif received:
                raise CallFailed(CUT_OFF)
            else:
                return

    async def _inflated(self, call: Call, flag: int, message: bytes) -> bytes:
        """Inflates a message. Large ones are inflated in a worker thread, off the event loop. Raises CallFailed."""
        coding = message_coding(flag, call.head.coding)
        try:
            if len(message) <= SMALL_BYTES:
                return inflate(message, coding, self._max_message_bytes)
            return await beside(partial(inflate, message, coding, self._max_message_bytes))
        except TooLarge as error:
            raise CallFailed(fault(error, "a compressed message")) from None
        except BadMessage as error:
            raise CallFailed(Fault(500, str(error))) from None  # gRPC's specification demands INTERNAL

    async def _answer_compressed(self, call: Call, flag: int, message: bytes) -> None:
        try:
            inflated = await self._inflated(call, flag, message)
        except CallFailed as failed:
            self._fail(call, failed.fault)
            return
        call.kept = len(inflated)
        self._weigh(call)
        if self._streams.get(call.id) is call:
            self._answer(call, inflated)
