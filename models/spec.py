"""The declaration of a model: data without behaviour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
    "BF16", "BYTES",
)  # fmt: skip
LARGEST_SIZE = 2**31 - 1  # of a dimension: no memory holds more


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output.

    shape: the first dimension is the batch dimension and always -1; another -1 is variable. Without `batched`, there
        is no batch dimension.
    optional: a request may leave this input out.
    pad: the value with which a variable second dimension may be padded, so that requests of different lengths can share
        a batch; None: only requests of equal shape share a batch.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    pad: float | int | None = None
    optional: bool = False
    batched: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: must not be empty")
        if self.datatype not in DATATYPES:
            raise ValueError(f"datatype: {self.datatype!r} is not one of {', '.join(DATATYPES)}")
        if self.batched and self.shape[:1] != (-1,):
            raise ValueError(
                f"shape: must begin with -1, the batch dimension; got {list(self.shape)}. For a model without one, "
                "which takes one request at a time, set `batched: false`"
            )
        if any(size == 0 or size < -1 for size in self.shape):
            raise ValueError(f"shape: sizes are positive, or -1 for variable; got {list(self.shape)}")
        if any(size > LARGEST_SIZE for size in self.shape):
            raise ValueError(f"shape: sizes are at most {LARGEST_SIZE}; got {list(self.shape)}")
        if self.pad is not None and not self.batched:
            raise ValueError("pad: must not be set with `batched: false`, since requests never share a batch")
        if self.pad is not None and (len(self.shape) < 2 or self.shape[1] != -1):
            raise ValueError(f"pad: only a variable second dimension can be padded; shape is {list(self.shape)}")

    @property
    def rows_alike(self) -> bool:
        """True if all rows have the same size once they are padded."""
        return -1 not in self.row_shape[0 if self.pad is None else 1 :]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row; of a request's whole tensor if the model is not batched."""
        return self.shape[1:] if self.batched else self.shape

    def fits(self, shape: Sequence[int]) -> bool:
        """Returns whether a shape `[rows, ...]` matches the declaration."""
        return len(shape) == len(self.row_shape) + 1 and all(
            declared in (-1, size) for declared, size in zip(self.row_shape, shape[1:], strict=True)
        )

    def shown(self, shape: Sequence[int]) -> list[int]:
        """Returns a shape `[rows, ...]` in the form of the declaration: without rows if the model is not batched."""
        return list(shape if self.batched else shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that a user may set. The batch size within them is learned.

    max_batch_rows: the most rows computed at once; None: as many as increase the throughput.
    max_queue_requests: the most requests that may wait; further requests are refused.
    max_sequences: the most sequences that a model with state keeps at a time.
    sequence_idle_s: a sequence without a request for this long is discarded.
    max_generations: the most requests that a decoupled model works on at a time.
    forward_timeout_s: a forward pass (or a step of a generation) that takes longer is aborted and its replica replaced.
    max_memory_mb: a replica whose process uses more memory is replaced; None: no limit.
    """

    max_batch_rows: int | None = None
    max_queue_requests: int = 4096
    max_generations: int = 8
    max_sequences: int = 1024
    sequence_idle_s: float = 60.0
    forward_timeout_s: float = 60.0
    max_memory_mb: int | None = None

    def __post_init__(self) -> None:
        if self.max_batch_rows is not None and self.max_batch_rows < 1:
            raise ValueError(
                f"max_batch_rows: must be at least 1, got {self.max_batch_rows}. For a model without a batch "
                "dimension, set `batched: false`"
            )
        if self.max_queue_requests < 1:
            raise ValueError(f"max_queue_requests: must be at least 1, got {self.max_queue_requests}")
        if self.max_sequences < 1:
            raise ValueError(f"max_sequences: must be at least 1, got {self.max_sequences}")
        if self.sequence_idle_s <= 0:
            raise ValueError(f"sequence_idle_s: must be positive, got {self.sequence_idle_s}")
        if self.max_generations < 1:
            raise ValueError(f"max_generations: must be at least 1, got {self.max_generations}")
        if self.forward_timeout_s <= 0:
            raise ValueError(f"forward_timeout_s: must be positive, got {self.forward_timeout_s}")
        if self.max_memory_mb is not None and self.max_memory_mb < 1:
            raise ValueError(f"max_memory_mb: must be at least 1, got {self.max_memory_mb}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of one replica. gpus is a fraction up to 1 or a whole number."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 0:
            raise ValueError(f"cpus: must not be negative, got {self.cpus}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"gpus: must be a fraction up to 1 or a whole number, got {self.gpus}")


Execution = Literal["auto", "eager", "compiled"]
Precision = Literal["float32", "bf16"]
EXECUTIONS, PRECISIONS = get_args(Execution), get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model as its owner describes it.

    factory: `package.module:attribute` of an nn.Module class, or of a function that returns a module or a `Model`.
    options: keyword arguments of the factory.
    latency_budget_ms: how long a client may wait; None: as fast as possible, no request is refused for being late.
    decoupled: the model generates: it has `generate` instead of `forward`, see `models.base.GeneratingModel`.
    state: tensors that the model passes from one request of a sequence to the next: they are added to the inputs, and
        the outputs of the same names replace them. A sequence begins with zeros.
    execution: "auto": CUDA graphs on a GPU and packed weights on the CPU are tried; "compiled": torch.compile is tried
        too; "eager": nothing is tried. The fastest variant with correct outputs is used.
    precision: "bf16" allows computing in bf16. channels_last: allows that memory layout for convolutions.
    tolerance: how far outputs of a variant may differ from float32, as a share of each output's largest value.
    labels: class labels by output name.
    example: JSON of one request's `inputs`, used in the example curl command.
    folder: the folder of the settings: it may contain the factory, and relative paths in options start there.
    batched: whether tensors have a dimension of rows, so that requests may share a batch; derived from the inputs.
    """

    name: str
    factory: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str = "1"
    options: Mapping[str, Any] = field(default_factory=dict)
    latency_budget_ms: float | None = None
    limits: Limits = field(default_factory=Limits)
    resources: Resources = field(default_factory=Resources)
    replicas: int = 1
    decoupled: bool = False
    state: tuple[TensorSpec, ...] = ()
    execution: Execution = "auto"
    precision: Precision = "float32"
    channels_last: bool = False
    tolerance: float = 0.01
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    description: str = ""
    example: str | None = None
    folder: str | None = field(default=None, compare=False)
    batched: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        """Raises ValueError that lists all mistakes, one per line."""
        # Computed once, because every request reads it.
        object.__setattr__(self, "batched", all(tensor.batched for tensor in self.inputs))
        mistakes = [*self._mistakes(), *self._mistakes_of_state()]
        if mistakes:
            raise ValueError("\n".join(mistakes))

    def _mistakes(self) -> Iterator[str]:
        if not self.name or not self.version:
            yield "name and version: must not be empty"
        module, separator, attribute = self.factory.partition(":")
        if not (module and separator and attribute):
            yield f"factory: {self.factory!r} is not of the form package.module:attribute"
        if not self.inputs or not self.outputs:
            yield "inputs and outputs: declare at least one of each"
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) != len(names):
                yield f"{kind}: two have the same name: {names}"
        if len({tensor.batched for tensor in (*self.inputs, *self.outputs, *self.state)}) > 1:
            yield "inputs and outputs: either all or none must have a batch dimension"
        if not self.batched and self.limits.max_batch_rows not in (None, 1):
            yield "limits.max_batch_rows: a model without a batch dimension is given one request at a time"
        if self.inputs and all(tensor.optional for tensor in self.inputs):
            yield "inputs: at least one must not be optional"
        if any(tensor.optional for tensor in (*self.outputs, *self.state)):
            yield "outputs: only inputs may be optional"
        if self.latency_budget_ms is not None and self.latency_budget_ms <= 0:
            yield f"latency_budget_ms: must be positive, got {self.latency_budget_ms}"
        if self.replicas < 1:
            yield f"replicas: must be at least 1, got {self.replicas}"
        if self.execution not in EXECUTIONS:
            yield f"execution: {self.execution!r} is not one of {', '.join(EXECUTIONS)}"
        if self.precision not in PRECISIONS:
            yield f"precision: {self.precision!r} is not one of {', '.join(PRECISIONS)}"
        if not 0 <= self.tolerance < 1:
            yield f"tolerance: must be a share from 0 to below 1, got {self.tolerance:g}"
        unknown = set(self.labels) - {tensor.name for tensor in self.outputs}
        if unknown:
            yield f"labels: no output is named {', '.join(sorted(unknown))}"

    def _mistakes_of_state(self) -> Iterator[str]:
        if not self.state:
            return
        if self.decoupled:
            yield "state: a decoupled model keeps its state in its generator"
        if self.replicas > 1:
            yield f"replicas: must be 1 for a model with state, whose sequences live in a process; got {self.replicas}"
        taken = {tensor.name for tensor in (*self.inputs, *self.outputs)}
        for tensor in self.state:
            if tensor.name in taken:
                yield f"state: {tensor.name!r} is already the name of an input, an output or another state"
            taken.add(tensor.name)
            if tensor.datatype == "BYTES" or -1 in tensor.row_shape:
                yield f"state: {tensor.name!r} must be numbers of a fixed shape, since a sequence begins with zeros"

    @property
    def max_batch_rows(self) -> int | None:
        """The most rows computed at once; None: no limit set. A request to a model without rows counts as one row."""
        return self.limits.max_batch_rows if self.batched else 1

    @property
    def stateful(self) -> bool:
        return bool(self.state)

    def with_state(self) -> "ModelSpec":
        """Returns the spec as the runtime uses it, with the state added to inputs and outputs."""
        return replace(self, inputs=(*self.inputs, *self.state), outputs=(*self.outputs, *self.state), state=())
