"""The messages of the gRPC services, as protobuf classes by their short name: `message("ModelInferRequest")`.

They live in a pool of their own. protobuf's default pool is one per process and knows every message by its full name,
so a process that also has tritonclient in it (a test, a load test) could not load a second `inference.*` into it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from serving.protocol.errors import BadMessage
from serving.protocol.pb.descriptors import FILES

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


@cache
def pool() -> DescriptorPool:
    """What reflection answers from."""
    own = DescriptorPool()
    for file in FILES:
        own.AddSerializedFile(file)
    return own


@cache
def message(name: str) -> Any:
    """The class of `inference.<name>`, or of the message with this full name."""
    full = name if name.startswith("grpc.") else f"inference.{name}"
    return GetMessageClass(pool().FindMessageTypeByName(full))


def decode(name: str, data: bytes) -> Any:
    """Raises BadMessage for bytes that are no such message."""
    try:
        return message(name).FromString(data)
    except DecodeError:
        raise BadMessage(f"not a {name}") from None


def encode(name: str, values: Mapping[str, Any]) -> bytes:
    """A message from the values that its JSON has, field by field; what it has no field for is left out."""
    encoded: bytes = ParseDict(values, message(name)(), ignore_unknown_fields=True).SerializeToString()
    return encoded
