"""The ways a shot can travel, one file each, behind one small protocol; `opening.py` picks by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from serving.protocol.messages import InferRequest, TensorDescription

WIRES = ("http-binary", "http-json", "http-raw", "grpc")


class NoAnswer(Exception):
    """No whole answer came: refused, closed, reset, or bytes that are none. The text says which."""


class NoMetadata(Exception):
    """The model did not say what it takes."""


@dataclass(slots=True)
class Flight:
    """What happened so far to one request. Instants are of `perf_counter_ns`, stamped where bytes leave and arrive.

    `status` is an HTTP status, also over gRPC (by Google's table of equals). `error`: what the server said, at 400 or
    above. Filled by the wire, and still readable where it was cancelled half-way."""

    sent_ns: int | None = None
    first_byte_ns: int | None = None
    done_ns: int | None = None
    status: int | None = None
    error: str | None = None


class Wire(Protocol):
    """Everything that costs time happens in `prepare`, before the run."""

    async def describe(self, model: str) -> list[TensorDescription]:
        """The model's inputs. Raises NoMetadata."""

    def prepare(self, model: str, request: InferRequest, headers: Mapping[str, str]) -> object:
        """The request as `exchange` takes it. `headers` are HTTP headers or gRPC metadata."""

    async def exchange(self, prepared: object, flight: Flight) -> None:
        """One request and its answer. Raises NoAnswer. A cancellation ends the request on the wire too."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where to shoot. `model` is empty where the URL names none; `path` is what the URL said, whole."""

    host: str
    port: int
    path: str
    model: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """`http://host:port`, with or without `/v2/models/NAME` and `/infer`; `grpc://` is the same. ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "grpc") or not parts.hostname:
            raise ValueError(f"url: expected http://host:port/v2/models/NAME, got {url!r}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"url: {error}, in {url!r}") from None
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        _, found, rest = parts.path.partition("/v2/models/")
        model = unquote(rest.strip("/").removesuffix("/infer")) if found else ""
        return cls(parts.hostname, port or (80 if parts.scheme == "http" else 8001), path, model)

    @property
    def authority(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
