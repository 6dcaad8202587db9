"""The HTTP surface as an OpenAPI document: what every server answers, and one set of paths per model with its own
tensors. Pure: from what is known of the models to plain data."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

Json = dict[str, Any]
_ELEMENT: Mapping[str, Json] = {
    "BOOL": {"type": "boolean"},
    "BYTES": {"type": "string"},
    "FP32": {"type": "number"},
    "FP64": {"type": "number"},
}
_NOT_IN_JSON = ("FP16", "BF16")
_WHOLE: Json = {"type": "integer"}
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


class DescribedTensor(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class Described(Protocol):
    """A model as its owner describes it. `example`: JSON of a request, or None."""

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


def signature(model: Described) -> Json:
    """What a person, or a form, needs to know to call the model. `labelled`: outputs that can be asked for by class."""
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
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def document(models: Iterable[Json], *, name: str, release: str) -> Json:
    """models: as `front.FrontApp` knows them; of one without a `signature` only the path is said."""
    paths = _server_paths()
    for model in models:
        paths |= _model_paths(model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": release,
            "description": "Open Inference Protocol v2. Every path of a model is also there with "
            "`/versions/<version>` after the name. Tensors may travel as binary data behind the JSON "
            "(`Inference-Header-Content-Length`); here the form without is described.",
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _server_paths() -> Json:
    return {
        "/v2": {"get": _get("The server's name, version and extensions", "ServerMetadata")},
        "/v2/health/live": {"get": _get("Whether the server lives", "Live")},
        "/v2/health/ready": {"get": _get("Whether all models are ready", "Ready", 503)},
        "/v2/models/stats": {"get": _get("Statistics of the models", "Statistics")},
        "/v2/repository/index": {
            "post": {
                "summary": "The models and their state",
                "requestBody": _body({"type": "object", "properties": {"ready": {"type": "boolean"}}}, required=False),
                "responses": _responses("Index", 400),
            }
        },
    }


def _model_paths(model: Json) -> Json:
    path, tag = f"/v2/models/{model['name']}", [model["name"]]
    infer: Json = {"summary": f"Inference by {model['name']}", "tags": tag}
    request: Json = {"$ref": "#/components/schemas/InferRequest"}
    example = None
    if known := model.get("signature"):
        infer["description"] = known["description"]
        infer["x-model"] = {key: model[key] for key in ("name", "version", "state")} | known
        request = _request_schema(known)
        example = known["example"]
    infer["requestBody"] = _body(request, example=example)
    infer["responses"] = _responses("InferResponse", 400, 413, 415, 500, 503, 504)
    return {
        path: {"get": _get("Inputs, outputs and version", "ModelMetadata") | {"tags": tag}},
        f"{path}/ready": {"get": _get("Whether the model is ready", "ModelReady", 503) | {"tags": tag}},
        f"{path}/config": {"get": _get("Triton's model configuration", "ModelConfig") | {"tags": tag}},
        f"{path}/stats": {"get": _get("Statistics of the replica that answers", "Statistics") | {"tags": tag}},
        f"{path}/infer": {"post": infer},
    } | _generate_paths(path, model, tag)


def _generate_paths(path: str, model: Json, tag: list[str]) -> Json:
    known = model.get("signature")
    if known is None or any(tensor["datatype"] in _NOT_IN_JSON for tensor in [*known["inputs"], *known["outputs"]]):
        return {}
    properties = {tensor["name"]: _value(_ELEMENT.get(tensor["datatype"], _WHOLE)) for tensor in known["inputs"]}
    fields = _object(tuple(properties), id=_TEXT, parameters=_ref("Parameters"))
    fields = fields | {"properties": fields["properties"] | properties}
    one = {
        "summary": "The only answer to one row",
        "tags": tag,
        "requestBody": _body(fields),
        "responses": _responses("Generated", 400, 413, 500, 503, 504),
    }
    names = ", ".join(tensor["name"] for tensor in known["outputs"])
    events = {
        "description": f"server-sent events, the data of each an object with {names}, or with `error`",
        "content": {"text/event-stream": {"schema": _object(data=_TEXT)}},
    }
    many = one | {"summary": "Every answer to one row as an event", "responses": one["responses"] | {"200": events}}
    return {f"{path}/generate": {"post": one}, f"{path}/generate_stream": {"post": many}}


def _value(element: Json) -> Json:
    return {"anyOf": [element, _list(element)]}


def _request_schema(known: Json) -> Json:
    """The general request, with this model's tensors in it. A model whose tensors JSON cannot carry gets the general
    one."""
    inputs = [_input_schema(tensor) for tensor in known["inputs"]]
    names = [output["name"] for output in known["outputs"]]
    count = len(inputs)
    outputs = {"type": "array", "items": {"allOf": [_ref("RequestedOutput")], "properties": {"name": {"enum": names}}}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "parameters": _ref("Parameters"),
            "inputs": {
                "type": "array",
                "items": inputs[0] if count == 1 else {"anyOf": inputs},
                "minItems": count,
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
                "description": "flat, in row-major order, or nested like the shape",
                "items": _ELEMENT.get(tensor["datatype"], _WHOLE),
            },
        },
    }


def _get(summary: str, schema: str, *errors: int) -> Json:
    return {"summary": summary, "responses": _responses(schema, *errors)}


def _responses(schema: str, *errors: int) -> Json:
    answers: Json = {"200": {"description": "the answer", "content": {"application/json": {"schema": _ref(schema)}}}}
    for status in errors:
        answers[str(status)] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": _ref("Error")}},
        }
    return answers


_ERRORS = {
    400: "the request is malformed or does not fit the model; the text begins with the path of the field",
    413: "the body is larger than the server's limit",
    415: "an unknown Content-Encoding",
    500: "the model failed",
    503: "not ready, or too busy; Retry-After says when to come back",
    504: "the deadline passed in the queue",
}


def _body(schema: Json, *, required: bool = True, example: str | None = None) -> Json:
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = json.loads(example)
    return {"required": required, "content": {"application/json": content}}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: Sequence[str] = (), **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_DESCRIBED = _object(name=_TEXT, datatype=_TEXT, shape=_list({"type": "integer"}))
_SCHEMAS: Json = {
    "Error": _object(error=_TEXT),
    "Live": _object(live={"type": "boolean"}),
    "Ready": _object(ready={"type": "boolean"}),
    "ServerMetadata": _object(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "Index": _list(_object(name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)),
    "ModelMetadata": _object(
        name=_TEXT, versions=_list(_TEXT), platform=_TEXT, inputs=_list(_DESCRIBED), outputs=_list(_DESCRIBED)
    ),
    "ModelReady": _object(name=_TEXT, ready={"type": "boolean"}),
    "ModelConfig": _object(("name", "input", "output"), name=_TEXT, input=_list({}), output=_list({})),
    "Statistics": _object(model_stats=_list({"type": "object"})),
    "Parameters": _object(("",), priority=_COUNT, timeout={**_COUNT, "description": "microseconds"}) | {"required": []},
    "RequestedOutput": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": _TEXT,
            "parameters": {
                "type": "object",
                "properties": {"classification": _COUNT, "binary_data": {"type": "boolean"}},
            },
        },
    },
    "InferRequest": _object(("inputs",), id=_TEXT, inputs=_list({"type": "object"}), outputs=_list({"type": "object"})),
    "Generated": _object(("model_name", "model_version"), id=_TEXT, model_name=_TEXT, model_version=_TEXT),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        id=_TEXT,
        model_name=_TEXT,
        model_version=_TEXT,
        outputs=_list(
            _object(
                ("name", "datatype", "shape"), name=_TEXT, datatype=_TEXT, shape=_list({"type": "integer"}), data={}
            )
        ),
    ),
}
