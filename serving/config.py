"""The typed settings tree, read from one YAML file; unknown or bad values stop the start and name the line.

The only place that reads configuration. Environment variables set nothing here: one file says what is served.
What a model declares is checked by `models.spec`, so that there is one truth about it; every setting with its default
and meaning is listed in docs/configuration.md, which `headway settings --markdown` prints.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator
from pydantic import model_validator as checks_all

from models.spec import Execution, Limits, ModelSpec, Precision, Resources, TensorSpec
from serving.config_mistakes import mistakes
from serving.config_source import KeyPath, SettingsError, Source, read_source
from serving.config_values import (
    ImportString,
    JsonText,
    Labels,
    ModelName,
    Number,
    Origin,
    Switch,
    Version,
    Weight,
    WholeOrNumber,
)
from serving.port_ranges import FAST_GRPC, RAY_GRPC, RAY_HTTP

__all__ = ["Settings", "SettingsError", "load_settings"]


class Section(BaseModel):
    # Not the input: options may be secret, and what a manifest's settings lack is told where clients can read it.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class RayPorts(NamedTuple):
    """What Ray Serve opens itself behind HAProxy, besides the replicas' listeners. statistics, metrics: HAProxy's
    pages, which our launcher keeps closed (`cluster/haproxy.py`)."""

    fallback: int
    fallback_grpc: int
    statistics: int
    metrics: int


class ServerSettings(Section):
    """The server as a whole."""

    name: str = Field("headway", description="How the server calls itself in `GET /v2`.")
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address it listens on. 0.0.0.0: reachable from other machines; `::`: by IPv6 as well.",
    )
    http_port: int = Field(8000, ge=1, le=65535, description="Port of the Open Inference Protocol over HTTP.")
    grpc_port: int | None = Field(
        8001, ge=1, le=65535, description="Port of the Open Inference Protocol over gRPC; null: no gRPC. Needs HAProxy."
    )
    max_body_bytes: int = Field(64 * 1024 * 1024, ge=1, description="The largest request body; a larger one gets 413.")
    tenant_header: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]*$",
        description="The HTTP header that names the tenant; tenants share device time. Empty: all are one. "
        "Whoever reaches the server can set it, so a gateway should.",
    )
    allowed_origins: list[Origin] = Field(
        default_factory=list,
        description="Web pages of these origins may ask the server from a browser (CORS): `https://app.example`, or "
        "`*` for all. They change nothing without the admin token. Empty: none.",
    )
    shared_memory: bool = Field(
        False,
        description="Clients on the same machine may register shared memory, the system's or (experimental) a GPU's, "
        "and send and get tensors there. Only where all clients are trusted: they can name any shared memory that the "
        "server may open.",
    )
    model_control: bool = Field(
        False, description="Clients may load and unload the models below at run time. Not on Kubernetes."
    )
    settings_control: bool = Field(
        True,
        description="Clients may change what is traced and logged at run time: those on the machine itself, or with "
        "the admin token, as with model_control and shared_memory.",
    )
    ray_address: str | None = Field(
        None, description="A running Ray to deploy to (`auto` or `host:port`); without it, one is started and ended."
    )
    haproxy: Switch = Field(
        "auto", description="`auto`: HAProxy balances the load where it is installed. `off`: Ray's slower Python proxy."
    )
    replay_kb: int = Field(
        32,
        ge=16,
        le=1024,
        description="Requests up to this size go to another replica if theirs dies without an answer. HAProxy copies "
        "so much for every request, however small: 32 cost it some 5 µs, 256 some 40. Raise it for photographs.",
    )
    haproxy_threads: int = Field(
        1, ge=1, le=64, description="Threads of HAProxy. One carries some ten thousand small requests per second."
    )
    gpu_hour_price: Number | None = Field(
        None, ge=0, description="What a GPU costs per hour, in any currency; for the metrics on cost."
    )
    cpu_hour_price: Number | None = Field(
        None, ge=0, description="What a CPU core costs per hour; for the metrics on cost."
    )
    request_log_per_s: int = Field(
        5,
        ge=0,
        le=1000,
        description="Requests logged per second and replica, at most: so many that went well and as many that did not. "
        "0: none.",
    )
    trace_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="Where spans go, an OTLP collector: `http://host:4318/v1/traces`. Needs `headway[trace]`.",
    )
    trace_share: Number = Field(
        0.01,
        ge=0,
        le=1,
        description="Of the requests that bring no trace of their own. Those that do decide themselves.",
    )

    admin_token_file: str | None = Field(
        None,
        min_length=1,
        description="A file with a secret, on the machine of the front: whoever sends it as a bearer token may read "
        "`/debug/` and change the server from elsewhere. Unset: only the machine itself may.",
    )
    record_folder: str | None = Field(
        None,
        min_length=1,
        description="Where replicas note what is asked, a line of JSON per request: instant, shapes, tenant (hashed), "
        "priority and deadline, no payload. `loadtest run URL --scenario FILE` plays it. Unset: nothing is noted.",
    )
    record_mb: int = Field(
        100, ge=1, description="What that folder may hold, of all replicas of a machine; the oldest lines go."
    )

    @property
    def own_host(self) -> str:
        """Where the server is called from its own machine, as it stands in a URL."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def url(self) -> str:
        return f"http://{self.own_host}:{self.http_port}"

    @property
    def ray_ports(self) -> "RayPorts":
        """They follow `http_port`, so that two servers on one machine need no more than ports of their own."""
        sign = 1 if self.http_port <= 65535 - 1500 else -1
        return RayPorts(*(self.http_port + sign * distance for distance in (500, 1500, 404, 1101)))

    @checks_all(mode="after")
    def _check(self) -> Self:
        for key, port, other in (("http_port", self.http_port, 8000), ("grpc_port", self.grpc_port or 0, 8001)):
            if port in FAST_GRPC:
                raise ValueError(f"{key}: {port} is used by replicas, for gRPC from HAProxy; take {other}, say")
            if port in self.ray_ports or port in RAY_HTTP or port in RAY_GRPC:
                raise ValueError(f"{key}: {port} is used by Ray Serve itself; take {other}, say")
        if self.grpc_port == self.http_port:
            raise ValueError(f"grpc_port: {self.grpc_port} is already the http_port")
        return self


class TensorSettings(Section):
    """One input or output."""

    name: str = Field(description="Its name in requests.")
    datatype: str = Field(description="BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, BF16 or BYTES.")
    shape: list[int] = Field(
        description="Sizes; the first is -1, the batch (unless `batched: false`); another -1 is variable."
    )
    pad: WholeOrNumber | None = Field(
        None, description="Fills up a variable second dimension, so that requests of different lengths share a batch."
    )

    optional: bool = Field(False, description="Of an input: requests may leave it out; the model is given None then.")

    def spec(self, *, batched: bool) -> TensorSpec:
        return TensorSpec(**self.model_dump() | {"shape": tuple(self.shape)}, batched=batched)

    def mistakes(self, *, batched: bool) -> Iterator[str]:
        try:
            self.spec(batched=batched)
        except ValueError as error:
            yield str(error)

    @checks_all(mode="after")
    def _check(self) -> Self:
        """What is wrong in any model."""
        TensorSpec(name=self.name, datatype=self.datatype, shape=tuple(self.shape), batched=False)
        return self


class ResourceSettings(Section):
    """What one replica gets."""

    cpus: float = Field(1.0, description="CPU cores; torch gets as many threads. Fractions are allowed.")
    gpus: float = Field(0.0, description="GPUs: a fraction up to 1, or a whole number.")

    def resources(self) -> Resources:
        return Resources(**self.model_dump())

    @checks_all(mode="after")
    def _check(self) -> Self:
        self.resources()
        return self


class LimitSettings(Section):
    """Bounds. What pays off within them is learned."""

    max_batch_rows: int | None = Field(None, description="The most rows computed at once; unset: learned.")
    max_queue_requests: int = Field(4096, description="The most requests that wait; one more is refused with 503.")
    max_sequences: int = Field(1024, description="How many sequences a model with state keeps at a time.")
    sequence_idle_s: float = Field(60.0, description="A sequence that is not continued for so long is forgotten.")
    max_generations: int = Field(8, description="How many requests a decoupled model works on at a time, by turns.")
    forward_timeout_s: float = Field(60.0, description="A forward pass that takes longer is given up.")
    max_memory_mb: int | None = Field(
        None, description="A replica whose process holds more is replaced: for models that leak. Unset: none is."
    )

    def limits(self) -> Limits:
        return Limits(**self.model_dump())

    @checks_all(mode="after")
    def _check(self) -> Self:
        self.limits()
        return self


class ScalingSettings(Section):
    """How many replicas, if that is to follow the load."""

    min_replicas: int = Field(
        3, ge=0, description="The fewest replicas. 0: a model that nobody asks for sleeps; the next request wakes it."
    )
    max_replicas: int = Field(10, ge=1, description="The most replicas.")
    max_wait_ms: float | None = Field(
        None,
        gt=0,
        description="More replicas if requests are to expect a longer wait than this. "
        "Unset: half of `latency_budget_ms`, or 1000 where there is none.",
    )
    max_queue_requests: int | None = Field(
        None,
        ge=1,
        description="More replicas if more requests than this wait at each. "
        "Unset: a quarter of `limits.max_queue_requests`.",
    )
    load_target: float = Field(
        0.6, gt=0, le=1, description="Fewer replicas if the rest would need no more of their time than this."
    )
    up_after_s: float = Field(2.0, ge=0, description="How long too long a wait must last before replicas are added.")
    down_after_s: float = Field(600.0, gt=0, description="How long there must be little to do before some are ended.")

    @checks_all(mode="after")
    def _check(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas: {self.min_replicas} is more than max_replicas, {self.max_replicas}")
        return self


class ModelSettings(Section):
    """One model."""

    name: ModelName = Field(description="Its name in the URL: `/v2/models/<name>/infer`.")
    version: Version = Field("1", description="Shown to clients.")
    factory: ImportString = Field(
        description="`package.module:attribute`: a module class, or a function that returns a module."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments of the factory. What names a file beside this one (`./net.pt`) is a path.",
    )
    batched: bool = Field(
        True,
        description="Tensors begin with the batch dimension, so that requests can share a batch. `false`: the model "
        "has none and is given one request at a time, as with Triton's `max_batch_size: 0`.",
    )
    inputs: list[TensorSettings] = Field(min_length=1, description="What a request carries.")
    outputs: list[TensorSettings] = Field(min_length=1, description="What the answer carries.")
    latency_budget_ms: float | None = Field(
        None, description="How long a client is ready to wait; what cannot make it is refused. Unset: nobody minds."
    )
    resources: ResourceSettings = Field(default_factory=ResourceSettings, description="What one replica gets.")
    decoupled: bool = Field(
        False, description="The model gives any number of answers to a request: it has `generate` instead of `forward`."
    )
    state: list[TensorSettings] = Field(
        default_factory=list,
        description="Tensors carried from request to request of a sequence: the model is given them as further inputs, "
        "and returns them as further outputs. They begin as zeros. Needs `replicas: 1`.",
    )
    replicas: int = Field(1, description="Copies of the model, each in a process of its own.")
    scaling: ScalingSettings | None = Field(None, description="Instead of `replicas`: their number follows the load.")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Bounds.")
    execution: Execution = Field(
        "auto",
        description="`auto`: on a GPU as CUDA graphs, where that is faster and right. `compiled`: torch.compile is "
        "tried too, which makes the start some minutes longer. `eager`: the module is just called.",
    )
    precision: Precision = Field(
        "float32",
        description="`bf16`: linear layers and convolutions may be computed in it, where the device has instructions "
        "for it, it is faster, and the outputs stay within `tolerance`.",
    )
    channels_last: bool = Field(
        False, description="Convolutions may be computed in this layout, under the same conditions as `precision`."
    )
    tolerance: float = Field(
        0.01,
        description="By how much outputs may differ from the plain module's in float32, as a share of each output's "
        "largest value.",
    )
    labels: dict[str, Labels] = Field(
        default_factory=dict, description="Class labels by output: a list, or a file with one label a line."
    )
    description: str = Field("", description="One sentence for whoever lists the models.")
    example: JsonText | None = Field(None, description="JSON of a valid request body, for the curl line at the start.")
    tenants: dict[str, Weight] = Field(
        default_factory=dict, description="Weights by tenant, when several compete; 1 unless named."
    )

    @field_validator("inputs", "outputs", "state")
    @classmethod
    def _check_tensors(cls, tensors: list[TensorSettings], info: ValidationInfo) -> list[TensorSettings]:
        """What is wrong in a model of this kind."""
        batched = info.data.get("batched", True)
        found = enumerate(tensor.mistakes(batched=batched) for tensor in tensors)
        if mistakes := [f"[{index}].{mistake}" for index, several in found for mistake in several]:
            raise ValueError("\n".join(mistakes))
        return tensors

    def fewest_replicas(self) -> int:
        return self.scaling.min_replicas if self.scaling else self.replicas

    def most_replicas(self) -> int:
        return self.scaling.max_replicas if self.scaling else self.replicas

    def spec(self) -> ModelSpec:
        """The facts of the same names; those that are sections and lists here have types of their own there."""
        same = {field.name: getattr(self, field.name) for field in fields(ModelSpec) if field.name in _SAME}
        return ModelSpec(
            **same,
            inputs=self._tensors(self.inputs),
            outputs=self._tensors(self.outputs),
            state=self._tensors(self.state),
            resources=self.resources.resources(),
            limits=self.limits.limits(),
            replicas=self.most_replicas(),
            labels={output: tuple(labels) for output, labels in self.labels.items()},
        )

    def _tensors(self, tensors: list[TensorSettings]) -> tuple[TensorSpec, ...]:
        return tuple(tensor.spec(batched=self.batched) for tensor in tensors)

    @checks_all(mode="after")
    def _check(self) -> Self:
        if self.scaling is not None and "replicas" in self.model_fields_set:
            raise ValueError("replicas: with `scaling` there is no fixed number; set scaling.min_replicas instead")
        self.spec()
        return self


# What a model's settings say in the spec's own types.
_CONVERTED = {"inputs", "outputs", "state", "resources", "limits", "replicas", "labels"}
_SAME = {field.name for field in fields(ModelSpec) if field.init} & ModelSettings.model_fields.keys() - _CONVERTED


class Settings(Section):
    """All settings. `Settings.model_validate(mapping)` takes them from a manifest, `load_settings` from a file."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="The server as a whole.")
    models: list[ModelSettings] = Field(min_length=1, description="The models to serve.")

    _source: Source | None = PrivateAttr(None)

    @property
    def source(self) -> Source | None:
        """The file they were read from, if they were."""
        return self._source

    @property
    def folder(self) -> str | None:
        """The folder of that file: models may lie beside it."""
        return str(self._source.folder) if self._source else None

    def model_specs(self) -> tuple[ModelSpec, ...]:
        return tuple(replace(model.spec(), folder=self.folder) for model in self.models)

    def tenant_weights(self, model: str) -> dict[str, float]:
        """Weights by tenant of the model of this name."""
        return dict(self.model(model).tenants)

    def model(self, name: str) -> ModelSettings:
        """The model of this name, which must be there."""
        return next(found for found in self.models if found.name == name)

    def as_mapping(self, model: str | None = None) -> dict[str, Any]:
        """What was set, as plain data that `model_validate` takes back. model: leave the other models out."""
        chosen = [found for found in self.models if model in (None, found.name)]
        return self.model_copy(update={"models": chosen}).model_dump(exclude_unset=True)

    @checks_all(mode="after")
    def _check(self) -> Self:
        first: dict[str, int] = {}
        for index, model in enumerate(self.models):
            if model.name in first:
                raise ValueError(
                    f"models[{index}].name: {model.name!r} is already the name of models[{first[model.name]}]"
                )
            first[model.name] = index
        return self


def load_settings(path: str | Path) -> Settings:
    """The settings in this file. Raises `SettingsError` with every mistake in it."""
    source = read_source(Path(path))
    if source.data is None:
        raise SettingsError([f"{source.path}: is empty; it needs at least `models:`, see docs/configuration.md"])
    if not isinstance(source.data, Mapping):
        raise SettingsError([f"{source.path}: expected `server:` and `models:`, got {type(source.data).__name__}"])
    try:
        settings = Settings.model_validate(source.data, context={"folder": source.folder})
    except ValidationError as error:
        raise SettingsError(mistakes(error, Settings, source)) from error
    settings._source = source
    return settings


def source_of(settings: Settings, key: KeyPath) -> str:
    """Where the value at this key came from: `demo.yaml:14`, or `default`."""
    source = settings.source
    if source is None or key not in source.lines:
        return "default"
    return f"{source.path}:{source.lines[key]}"
