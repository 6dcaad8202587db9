"""Digests of requests. Two requests have the same digest only if one model has to answer them alike."""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from serving.protocol.tensors import write_tensor

DIGEST_BYTES = 16


def digest(fingerprint: bytes, inputs: Mapping[str, np.ndarray], parameters: Mapping[str, object] | None) -> bytes:
    """Returns the digest of a request. It covers names, datatypes, shapes and values, whatever their order.

    Values are compared as bytes: 0.0 and -0.0 differ. fingerprint: of the model, 1 to 64 bytes. BLAKE2b (RFC 7693) and
    not a faster hash, because clients choose the inputs.
    """
    state = blake2b(key=fingerprint, digest_size=DIGEST_BYTES)
    for name in sorted(inputs):
        array = inputs[name]
        # Of an array, its description says how many bytes follow; of a text, its length stands in front of it.
        datatype = "BYTES" if array.dtype.kind in "OSU" else array.dtype.str
        state.update(repr((name, datatype, array.shape)).encode())
        raw = write_tensor(array)
        state.update(raw if isinstance(raw, bytes) else raw.reshape(-1).data)
    if parameters:
        state.update(repr(sorted((name, type(value).__name__, value) for name, value in parameters.items())).encode())
    return state.digest()


def size_of(inputs: Mapping[str, np.ndarray]) -> int:
    """Returns roughly how many bytes a digest of these inputs reads."""
    return sum(sum(map(len, array.flat)) if array.dtype == object else array.nbytes for array in inputs.values())
