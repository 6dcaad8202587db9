"""The ways a shot can travel, one file each, behind one small protocol; `open_wire` picks by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from serving.protocol.messages import InferRequest, TensorDescription

WIRES = ("http-binary", "http-json", "http-raw", "grpc")


class NoAnswer(Exception):
    """A request without a complete answer: the connection was refused, closed or reset, or the bytes were invalid. The
    text gives the reason."""


class NoMetadata(Exception):
    """The server did not return the model's metadata."""


@dataclass(slots=True)
class Flight:
    """The progress of one request. Instants are of `perf_counter_ns`, taken where bytes are sent and received.

    `status` is an HTTP status, over gRPC too (by Google's mapping). `error`: the server's error for a status of 400 or
    above. The wire fills the fields in, and they stay readable if it is cancelled."""

    sent_ns: int | None = None
    first_byte_ns: int | None = None
    done_ns: int | None = None
    status: int | None = None
    error: str | None = None


class Wire(Protocol):
    """A protocol to send requests with. All expensive work is done in `prepare`, before the run."""

    async def describe(self, model: str) -> list[TensorDescription]:
        """Returns the model's inputs. Raises NoMetadata."""

    def prepare(self, model: str, request: InferRequest, headers: Mapping[str, str]) -> object:
        """Encodes a request for `exchange`. `headers` are HTTP headers or gRPC metadata."""

    async def exchange(self, prepared: object, flight: Flight) -> None:
        """Sends one request and reads its answer. Raises NoAnswer. A cancellation also cancels the request on the
        wire."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server. `model` is empty if the URL names none; `path` is the URL's whole path and query."""

    host: str
    port: int
    path: str
    model: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Parses `http://host:port` or `grpc://host:port`, with or without `/v2/models/NAME` and `/infer`. Raises
        ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "grpc") or not parts.hostname:
            raise ValueError(f"url: expected http://host:port/v2/models/NAME, got {url!r}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"url: {error}, in {url!r}") from None
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        _, separator, rest = parts.path.partition("/v2/models/")
        model = unquote(rest.strip("/").removesuffix("/infer")) if separator else ""
        return cls(parts.hostname, port or (80 if parts.scheme == "http" else 8001), path, model)

    @property
    def authority(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def open_wire(name: str, address: Address) -> Wire:
    """Must be called where the event loop runs."""
    if name == "grpc":
        from loadtest.wires.grpc import GrpcWire  # its packages are an extra

        return GrpcWire(address)
    from loadtest.wires.http import HttpWire

    return HttpWire(address, name.removeprefix("http-"))
