"""Answers in the memory of this process, bounded in bytes. The least recently used are dropped first."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from serving.protocol.tensors import as_bytes, object_array

Key = tuple[str, bytes]  # tenant and digest
ANSWER_BYTES, OUTPUT_BYTES, TEXT_BYTES = 500, 200, 56  # the memory that each takes besides its values
LARGEST_PART = 8  # an answer that would fill more than this part of the memory is not kept


class Answer(NamedTuple):
    """The outputs of a model, which nothing may change. expires_ms: time of day in ms since 1970."""

    outputs: Mapping[str, np.ndarray]
    size: int
    expires_ms: int


def owned(outputs: Mapping[str, np.ndarray], expires_ms: int) -> Answer:
    """Returns an answer with copies: the outputs of a request are views of its whole batch."""
    copies: dict[str, np.ndarray] = {}
    size = ANSWER_BYTES
    for name, array in outputs.items():
        if array.dtype == object:
            texts = [as_bytes(element) for element in array.ravel().tolist()]
            copies[name] = object_array(texts, array.shape)
            size += sum(map(len, texts)) + TEXT_BYTES * len(texts)
        else:
            # As in requests, whatever the model prefers.
            copies[name] = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array.copy()
        copies[name].flags.writeable = False
        size += array.nbytes + OUTPUT_BYTES
    return Answer(copies, size, expires_ms)


class Kept:
    """The answers by tenant and digest. most_bytes: of all of them together; 0: nothing is kept."""

    def __init__(self, most_bytes: int) -> None:
        self.bytes = 0
        self._most_bytes = most_bytes
        self._answers: OrderedDict[Key, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: Key, now_ms: int) -> Answer | None:
        """Returns the answer, unless it has expired."""
        answer = self._answers.get(key)
        if answer is None:
            return None
        if answer.expires_ms <= now_ms:
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return answer

    def put(self, key: Key, answer: Answer) -> None:
        if answer.size * LARGEST_PART > self._most_bytes:
            return
        if key in self._answers:
            self._drop(key)
        self._answers[key] = answer
        self.bytes += answer.size
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._answers)))

    def clear(self, tenant: str | None = None) -> int:
        """Drops the answers of a tenant, or all of them. Returns how many."""
        dropped = [key for key in self._answers if tenant in (None, key[0])]
        for key in dropped:
            self._drop(key)
        return len(dropped)

    def _drop(self, key: Key) -> None:
        self.bytes -= self._answers.pop(key).size
