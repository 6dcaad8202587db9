"""Recognises ModelInfer messages that differ from an earlier one only in the values of their single input.

Most clients send such messages: all bytes before the values (the opening) are the same each time, and they determine
where the values are. Such a message need not be parsed again.
"""

from typing import NamedTuple

import numpy as np

from serving.api.grpc.pending import Planned
from serving.api.recall import GENERATION, Recall
from serving.protocol.grpc_codec import Split
from serving.protocol.messages import Tensor


class Opening(NamedTuple):
    """The facts that the bytes before the values determine. size: bytes of the whole message. start: offset of the
    values in bytes. name, shape, dtype: of the input."""

    size: int
    start: int
    id: str
    planned: Planned
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, message: bytes) -> dict[str, Tensor]:
        """Returns the input by its name, as a view into the message."""
        return {self.name: np.ndarray(self.shape, self.dtype, message, self.start)}


class Openings:
    """A bounded cache of openings. A hit costs two look-ups: by the message's length, and by its opening. May be used
    from any thread."""

    def __init__(self) -> None:
        self._starts: dict[int, int] = {}  # offset of the values by the length of the message, both in bytes
        self._known: Recall[Opening] = Recall()

    def find(self, message: bytes) -> Opening | None:
        start = self._starts.get(len(message))
        known = None if start is None else self._known.get(message[:start])
        return known if known is not None and known.size == len(message) else None

    def keep(self, request: Split, planned: Planned) -> None:
        """Keeps the opening of a message that was just parsed. Does nothing if the opening does not determine the rest
        of the message up to the values."""
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
