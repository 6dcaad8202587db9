"""Open Inference messages as plain values, the same for HTTP and gRPC and independent of codecs and servers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.protocol.spans import Span

Parameter = bool | int | float | str
Tensor = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """A model's declaration of one input or output. A dimension of -1 in `shape` has any size; `shape[0]` is the rows
    if the model is `batched`, otherwise a request counts as one row. `optional`: requests may omit this input."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    batched: bool = True
    optional: bool = False

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row; the shape of the whole tensor if the model is not batched."""
        return self.shape[1:] if self.batched else self.shape


@dataclass(frozen=True, slots=True)
class InferInput:
    """One input with its values. BYTES are an object array of `bytes`; other arrays may be read-only views."""

    name: str
    datatype: str
    data: Tensor
    binary: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a request asks for. `binary` None: the request's `binary_data_output` decides. `classes` > 0:
    return that many of the highest classes as text. `span`: shared memory to write it to instead of sending it."""

    name: str
    binary: bool | None = None
    classes: int = 0
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request. Empty `outputs` means all outputs; an empty `id` means that none was given."""

    inputs: tuple[InferInput, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferOutput:
    """One output with its values, as a client decodes it."""

    name: str
    datatype: str
    data: Tensor


@dataclass(frozen=True, slots=True)
class InferResponse:
    model_name: str
    model_version: str
    outputs: tuple[InferOutput, ...]
    id: str = ""
