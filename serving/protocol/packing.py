"""Packs the outputs of a model as bytes for a store outside of the process, and unpacks them.

The bytes are MessagePack, an array of: the version of this format, the time of day at which the answer expires in ms
since 1970, and for each output an array of name, datatype, shape, and the raw values as in a binary request.
"""

from collections.abc import Mapping

import msgspec

from serving.protocol.errors import BadTensor
from serving.protocol.messages import Tensor
from serving.protocol.tensors import check_datatype, check_size, datatype_of, element_count, read_tensor, write_tensor

VERSION = 1


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    version: int
    expires_ms: int
    outputs: list[tuple[str, str, tuple[int, ...], bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def pack(outputs: Mapping[str, Tensor], expires_ms: int) -> bytes:
    """Returns the bytes. Raises ValueError if the protocol has no datatype for an output."""
    told = [
        (name, datatype_of(array.dtype), array.shape, _bytes(write_tensor(array))) for name, array in outputs.items()
    ]
    return _encoder.encode(_Packed(VERSION, expires_ms, told))


def unpack(data: bytes) -> tuple[dict[str, Tensor], int]:
    """Returns the outputs, which are views of `data` where possible, and when they expire.

    Raises BadTensor for anything that `pack` does not write, or has written in another version."""
    try:
        packed = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:  # the second: of a text that is not UTF-8
        raise BadTensor(f"no packed outputs: {error}") from None
    if packed.version != VERSION:
        raise BadTensor(f"outputs packed in version {packed.version}, not {VERSION}")
    outputs: dict[str, Tensor] = {}
    for name, datatype, shape, raw in packed.outputs:
        check_datatype(datatype, name)
        check_size(datatype, element_count(shape, name), len(raw), name)
        outputs[name] = read_tensor(raw, 0, len(raw), datatype, shape, name)
        outputs[name].flags.writeable = False
    return outputs, packed.expires_ms


def _bytes(raw: Tensor | bytes) -> bytes:
    return raw if isinstance(raw, bytes) else raw.tobytes()
