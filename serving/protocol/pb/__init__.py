"""The messages of the gRPC services, as protobuf classes by their short name: `message("ModelInferRequest")`.

They are in a descriptor pool of their own. protobuf's default pool holds one message per full name, so a process that
also imports tritonclient (a test, a load test) could not load a second `inference.*` into it.
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
    """Returns the descriptor pool of the services, which reflection uses too."""
    own = DescriptorPool()
    for file in FILES:
        own.AddSerializedFile(file)
    return own


@cache
def message(name: str) -> Any:
    """Returns the class of `inference.<name>`, or of a message of `grpc.*` by its full name."""
    full = name if name.startswith("grpc.") else f"inference.{name}"
    return GetMessageClass(pool().FindMessageTypeByName(full))


def decode(name: str, data: bytes) -> Any:
    """Decodes a message. Raises BadMessage for bytes that are no such message."""
    try:
        return message(name).FromString(data)
    except DecodeError:
        raise BadMessage(f"not a {name}") from None


def encode(name: str, values: Mapping[str, Any]) -> bytes:
    """Encodes a message from the values of its JSON form; values without a field in the message are left out."""
    encoded: bytes = ParseDict(values, message(name)(), ignore_unknown_fields=True).SerializeToString()
    return encoded
