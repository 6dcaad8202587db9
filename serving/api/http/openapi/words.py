"""The building blocks of the OpenAPI document: schemas, bodies and responses. Pure functions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
FLAG: Json = {"type": "boolean"}
ERRORS: Mapping[int, str] = {
    400: "the request is malformed or does not fit the model; the text begins with the path of the field",
    403: "only allowed from the server's machine, or with the admin token as a bearer token",
    404: "nothing of that name exists",
    413: "the body is larger than the server's limit",
    415: "an unknown Content-Encoding",
    500: "the model failed",
    501: "not possible: call a model that gives any number of answers with generate or generate_stream",
    503: "not ready or overloaded; retry after the seconds in Retry-After",
    504: "the deadline passed before the request was computed",
}


def answers(schema: str, *errors: int) -> Json:
    """Returns the responses of an operation. schema: the name of the schema of its successful answer."""
    responses: Json = {"200": {"description": "the answer", "content": {"application/json": {"schema": ref(schema)}}}}
    for status in errors:
        responses[str(status)] = {
            "description": ERRORS[status],
            "content": {"application/json": {"schema": ref("Error")}},
        }
    return responses


def read(summary: str, schema: str, *errors: int, **more: Any) -> Json:
    """Returns a path with a GET operation."""
    return {"get": {"summary": summary, "responses": answers(schema, *errors)} | more}


def change(summary: str, given: Json | None, schema: str, *errors: int, required: bool = True, **more: Any) -> Json:
    """Returns a path with a POST operation. given: the schema of its body, None without a body."""
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
    """Returns the schema of an object. required: the names of the required properties; all if empty."""
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def wishes(**properties: Json) -> Json:
    """Returns the schema of an object without required properties."""
    return {"type": "object", "properties": properties}


def each(items: Json) -> Json:
    return {"type": "array", "items": items}
