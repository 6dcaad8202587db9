"""Recognises ModelInfer messages that differ from an earlier one in nothing but the values of their only input.

Most clients send such messages: all bytes before the values are the same each time, and say where the values lie. Such
a message need not be taken apart again.
"""

from typing import NamedTuple

import numpy as np

from serving.api.grpc.pending import Planned
from serving.api.recall import GENERATION, Recall
from serving.protocol.grpc_codec import Split
from serving.protocol.messages import Tensor


class Opening(NamedTuple):
    """What the bytes before the values decide. size: of the whole message, in bytes. start: of the values."""

    size: int
    start: int
    id: str
    planned: Planned
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, message: bytes) -> dict[str, Tensor]:
        """The input by its name, as a view into the message."""
        return {self.name: np.ndarray(self.shape, self.dtype, message, self.start)}


class Openings:
    """Bounded. A message of a length that was seen costs a look-up by its length and one by its opening."""

    def __init__(self) -> None:
        self._starts: dict[int, int] = {}  # by the length of a message: where its values begin
        self._known: Recall[Opening] = Recall()

    def find(self, message: bytes) -> Opening | None:
        start = self._starts.get(len(message))
        known = None if start is None else self._known.get(message[:start])
        return known if known is not None and known.size == len(message) else None

    def keep(self, request: Split, planned: Planned) -> None:
        """Of a message that has just been read; does nothing where its opening does not decide all."""
        view = planned.layout.only_view
        if view is None or planned.plan.form.shared or len(request.raws) != 1:
            return
        message, (start, length) = request.message, request.raws[0]
        name, shape, dtype, size = view
        if length == size and start + length == len(message):
            if len(self._starts) >= GENERATION:
                self._starts.clear()
            self._starts[len(message)] = start
            self._known.keep(message[:start], Opening(len(message), start, request.id, planned, name, shape, dtype))
