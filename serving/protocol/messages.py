"""Open Inference messages as plain values, the same whatever wire they came by. They know no codec and no server."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.protocol.spans import Span

Parameter = bool | int | float | str
Tensor = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """What a model says of one input or output; -1 in `shape` is a dimension of any size, `shape[0]` the rows, unless
    the model is not `batched`: then its requests count as one row. `optional`: a request may leave this input out."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    batched: bool = True
    optional: bool = False

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one row: of the whole tensor, where there are no rows."""
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
    """`binary` None: as the request's `binary_data_output` says. `classes` > 0: the best so many, as text. `span`:
    where to write it, instead of sending it."""

    name: str
    binary: bool | None = None
    classes: int = 0
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """No `outputs` means all of them. `id` empty means none was given."""

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
