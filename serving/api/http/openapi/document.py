"""Describes the HTTP interface as an OpenAPI document: the server's paths, and each model's paths with its tensors.

Pure: takes the entries of the models and returns plain data.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from serving.api.entry import ModelEntry
from serving.api.feedback import MOST_AT_ONCE, MOST_ID_CHARACTERS
from serving.api.http.openapi.server import SERVER_SCHEMAS, server_paths, settings
from serving.api.http.openapi.words import (
    COUNT,
    FLAG,
    TEXT,
    Json,
    answers,
    body,
    change,
    each,
    fields,
    read,
    ref,
    wishes,
)
from serving.api.signature import Described
from serving.names import model_path

_ELEMENT: Mapping[str, Json] = {
    "BOOL": FLAG,
    "BYTES": TEXT,
    "FP32": {"type": "number"},
    "FP64": {"type": "number"},
}
_NOT_IN_JSON = ("FP16", "BF16")
_WHOLE: Json = {"type": "integer"}


class DescribedTensor(Described, Protocol):
    @property
    def batched(self) -> bool: ...
    @property
    def optional(self) -> bool: ...


class DescribedModel(Protocol):
    """The parts of a model that the document describes. example: the JSON of an example request, or None."""

    @property
    def inputs(self) -> Sequence[DescribedTensor]: ...
    @property
    def outputs(self) -> Sequence[DescribedTensor]: ...
    @property
    def description(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def decoupled(self) -> bool: ...
    @property
    def stateful(self) -> bool: ...
    @property
    def example(self) -> str | None: ...


def signature(model: DescribedModel) -> Json:
    """Returns the description of a model from which the pages make a form.

    labelled: the names of outputs that can be requested as classes.
    """
    return {
        "description": model.description,
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
        "labelled": sorted(model.labels),
        "decoupled": model.decoupled,
        "stateful": model.stateful,
        "example": model.example,
    }


def _tensor(tensor: DescribedTensor) -> Json:
    """Returns a tensor's description; `batched` and `optional` only if they differ from the default."""
    unusual = ({} if tensor.batched else {"batched": False}) | ({"optional": True} if tensor.optional else {})
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} | unusual


def document(models: Iterable[ModelEntry], *, name: str, release: str, extensions: Collection[str] = ()) -> Json:
    """Returns the OpenAPI document of a server.

    models: for a model without a `signature`, the tensors are not described.
    extensions: the extensions of the protocol that this server offers.
    """
    models = list(models)
    paths = server_paths(extensions, [model.name for model in models])
    for model in models:
        if model_path(model.name) not in paths:  # of a model with several versions, the first is described
            paths |= _model_paths(model, extensions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": release,
            "description": "Open Inference Protocol v2. Every path of a model also exists with "
            "`/versions/<version>` after the name. Tensors may be sent as binary data after the JSON "
            "(`Inference-Header-Content-Length`); this document describes the form without binary data.",
        },
        "paths": paths,
        "components": {"schemas": SERVER_SCHEMAS | _SCHEMAS},
    }


def _model_paths(model: ModelEntry, extensions: Collection[str]) -> Json:
    path, tags = model_path(model.name), [model.name]
    infer: Json = {"summary": f"Runs inference with {model.name}", "tags": tags}
    request = ref("InferRequest")
    example = None
    if known := model.signature:
        infer["description"] = known["description"]
        infer["x-model"] = {"name": model.name, "version": model.version, "state": model.state} | known
        request = _request_schema(known)
        example = known["example"]
    infer["requestBody"] = body(request, example=example)
    refusals = (501,) if known and known["decoupled"] else ()  # it answers only generate and generate_stream
    infer["responses"] = answers("InferResponse", 400, 413, 415, 500, *refusals, 503, 504)
    paths = {
        path: read("Returns the model's inputs, outputs and version", "ModelMetadata", tags=tags),
        f"{path}/ready": read("Returns whether the model is ready", "ModelReady", 503, tags=tags),
        f"{path}/config": read("Returns the model's configuration in Triton's format", "ModelConfig", tags=tags),
        f"{path}/stats": read("Returns the statistics of all replicas of the model", "Statistics", tags=tags),
        f"{path}/infer": {"post": infer},
    }
    if "trace" in extensions:
        paths[f"{path}/trace/setting"] = settings("the trace settings of the model", "TraceSettings", tags=tags)
    summary = "Removes answers from the model's cache: of one tenant, or of all"
    clearing = change(summary, ref("CacheClearing"), "CacheCleared", 400, 403, 503, tags=tags)
    paths[f"{path}/cache/clear"] = clearing
    if "routes" in extensions:
        summary = "Changes which version answers requests that name none, and the share of a candidate"
        paths[f"{path}/route"] = read("Returns which version answers requests that name none", "Route", tags=tags)
        paths[f"{path}/route"] |= change(summary, ref("RouteWanted"), "Route", 400, 403, 409, 503, tags=tags)
    summary = "Takes values for answers to requests of the caller; they count while a release of the model runs"
    paths[f"{path}/feedback"] = change(summary, ref("Feedback"), "FeedbackReceived", 400, 413, 503, tags=tags)
    return paths | _generate_paths(path, model, tags)


def _generate_paths(path: str, model: ModelEntry, tags: list[str]) -> Json:
    known = model.signature
    if known is None or any(tensor["datatype"] in _NOT_IN_JSON for tensor in [*known["inputs"], *known["outputs"]]):
        return {}
    tensors = {tensor["name"]: _value(_ELEMENT.get(tensor["datatype"], _WHOLE)) for tensor in known["inputs"]}
    required = [tensor["name"] for tensor in known["inputs"] if not tensor.get("optional")]
    known_to_all = {"id": TEXT, "parameters": ref("Parameters")}
    row: Json = {"type": "object", "properties": known_to_all | tensors, "required": required}
    summary = "Runs inference for one row and returns its only answer"
    one = change(summary, row, "Generated", 400, 413, 500, 503, 504, tags=tags)
    names = ", ".join(tensor["name"] for tensor in known["outputs"])
    events = {
        "description": f"server-sent events; the data of each is a JSON object with {names}, or with `error`",
        "content": {"text/event-stream": {"schema": fields(data=TEXT)}},
    }
    responses = one["post"]["responses"] | {"200": events}
    summary = "Runs inference for one row and streams its answers as events"
    many = one["post"] | {"summary": summary, "responses": responses}
    return {f"{path}/generate": one, f"{path}/generate_stream": {"post": many}}


def _value(element: Json) -> Json:
    return {"anyOf": [element, each(element)]}


def _request_schema(known: Json) -> Json:
    """Returns the schema of an infer request with this model's tensors."""
    inputs = [_input_schema(tensor) for tensor in known["inputs"]]
    names = [output["name"] for output in known["outputs"]]
    count = len(inputs)
    outputs = {"type": "array", "items": {"allOf": [ref("RequestedOutput")], "properties": {"name": {"enum": names}}}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": TEXT,
            "parameters": ref("Parameters"),
            "inputs": {
                "type": "array",
                "items": inputs[0] if count == 1 else {"anyOf": inputs},
                "minItems": sum(not tensor.get("optional") for tensor in known["inputs"]),
                "maxItems": count,
            },
            "outputs": outputs,
        },
    }


def _input_schema(tensor: Json) -> Json:
    sizes = [{"type": "integer", "minimum": 1} if size < 0 else {"const": size} for size in tensor["shape"]]
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": tensor["name"]},
            "datatype": {"const": tensor["datatype"]},
            "shape": {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)},
            "data": {
                "type": "array",
                "description": "the elements: flat in row-major order, or nested like the shape",
                "items": _ELEMENT.get(tensor["datatype"], _WHOLE),
            },
        },
    }


_TEN_THOUSANDTHS: Json = {**COUNT, "maximum": 10_000, "description": "ten-thousandths of the requests"}
_DESCRIBED = fields(name=TEXT, datatype=TEXT, shape=each(_WHOLE))
_FEEDBACK: Json = {
    "type": "object",
    "required": ["id", "value"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": MOST_ID_CHARACTERS},
        "value": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "additionalProperties": False,
}
_SCHEMAS: Json = {
    "ModelMetadata": fields(
        name=TEXT, versions=each(TEXT), platform=TEXT, inputs=each(_DESCRIBED), outputs=each(_DESCRIBED)
    ),
    "ModelReady": fields(name=TEXT, ready=FLAG),
    "ModelConfig": fields(("name", "input", "output"), name=TEXT, input=each({}), output=each({})),
    "Route": fields(
        ("model", "versions", "stable", "share"),
        model=TEXT,
        versions=each(TEXT),
        stable=TEXT,
        candidate={"type": ["string", "null"]},
        share=_TEN_THOUSANDTHS,
    ),
    "RouteWanted": wishes(
        stable=TEXT,
        candidate={"type": ["string", "null"]},
        share={"anyOf": [_TEN_THOUSANDTHS, TEXT | {"description": "in percent: `5%`"}]},
        why=TEXT,
        by=TEXT,
    ),
    "Parameters": wishes(priority=COUNT, timeout={**COUNT, "description": "microseconds"}),
    "RequestedOutput": fields(("name",), name=TEXT, parameters=wishes(classification=COUNT, binary_data=FLAG)),
    "InferRequest": fields(("inputs",), id=TEXT, inputs=each({"type": "object"}), outputs=each({"type": "object"})),
    "Feedback": {"anyOf": [_FEEDBACK, {"type": "array", "items": _FEEDBACK, "minItems": 1, "maxItems": MOST_AT_ONCE}]},
    "FeedbackReceived": fields(received=COUNT),
    "Generated": fields(("model_name", "model_version"), id=TEXT, model_name=TEXT, model_version=TEXT),
    "InferResponse": fields(
        ("model_name", "model_version", "outputs"),
        id=TEXT,
        model_name=TEXT,
        model_version=TEXT,
        outputs=each(fields(("name", "datatype", "shape"), name=TEXT, datatype=TEXT, shape=each(_WHOLE), data={})),
    ),
}
