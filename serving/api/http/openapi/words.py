"""The building blocks of an OpenAPI document: schemas, request bodies, responses and operations. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
FLAG: Json = {"type": "boolean"}
ERRORS: Mapping[int, str] = {
    400: "the request is malformed or does not fit the model; the text begins with the path of the faulty field",
    403: "only callers on the server's machine, or with the admin token as a bearer token, may do this",
    404: "the name is unknown",
    409: "not now: the text says what stands against it",
    413: "the body is larger than the server's limit",
    415: "the Content-Encoding is unknown",
    500: "the model failed",
    501: "this model sends any number of answers; use generate or generate_stream",
    503: "not ready, or too busy; Retry-After states when to retry",
    504: "the request's deadline passed while it waited in the queue",
}


def answers(schema: str, *errors: int) -> Json:
    """Returns the responses of an operation. schema: the component that describes its answer. errors: statuses."""
    responses: Json = {"200": {"description": "the answer", "content": {"application/json": {"schema": ref(schema)}}}}
    for status in errors:
        responses[str(status)] = {
            "description": ERRORS[status],
            "content": {"application/json": {"schema": ref("Error")}},
        }
    return responses


def read(summary: str, schema: str, *errors: int, **more: Any) -> Json:
    """Returns an operation with the verb GET."""
    return {"get": {"summary": summary, "responses": answers(schema, *errors)} | more}


def change(summary: str, given: Json | None, schema: str, *errors: int, required: bool = True, **more: Any) -> Json:
    """Returns an operation with the verb POST. given: the schema of its body, or None if it has none."""
    operation = {"summary": summary, "responses": answers(schema, *errors)} | more
    return {"post": operation if given is None else operation | {"requestBody": body(given, required=required)}}


def body(schema: Json, *, required: bool = True, example: str | None = None) -> Json:
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = json.loads(example)
    return {"required": required, "content": {"application/json": content}}


def ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def fields(required: Sequence[str] = (), **properties: Json) -> Json:
    """Returns the schema of an object. required: the required properties; all if it is empty."""
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def wishes(**properties: Json) -> Json:
    """Returns the schema of an object whose properties are all optional."""
    return {"type": "object", "properties": properties}


def each(items: Json) -> Json:
    return {"type": "array", "items": items}
