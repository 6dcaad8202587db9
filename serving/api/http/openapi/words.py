"""The words an OpenAPI document is made of: schemas, bodies and answers. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
FLAG: Json = {"type": "boolean"}
ERRORS: Mapping[int, str] = {
    400: "the request is malformed or does not fit the model; the text begins with the path of the field",
    403: "only for callers on the machine itself, or with the admin token as a bearer token",
    404: "there is none of that name",
    413: "the body is larger than the server's limit",
    415: "an unknown Content-Encoding",
    500: "the model failed",
    501: "not offered: a model that gives any number of answers is asked with generate or generate_stream",
    503: "not ready, or too busy; Retry-After says when to come back",
    504: "the deadline passed in the queue",
}


def answers(schema: str, *errors: int) -> Json:
    """The responses of an operation. schema: of the component that it answers with."""
    told: Json = {"200": {"description": "the answer", "content": {"application/json": {"schema": ref(schema)}}}}
    for status in errors:
        told[str(status)] = {
            "description": ERRORS[status],
            "content": {"application/json": {"schema": ref("Error")}},
        }
    return told


def read(summary: str, schema: str, *errors: int, **more: Any) -> Json:
    """A GET."""
    return {"get": {"summary": summary, "responses": answers(schema, *errors)} | more}


def change(summary: str, given: Json | None, schema: str, *errors: int, required: bool = True, **more: Any) -> Json:
    """A POST. given: what its body is, or None."""
    told = {"summary": summary, "responses": answers(schema, *errors)} | more
    return {"post": told if given is None else told | {"requestBody": body(given, required=required)}}


def body(schema: Json, *, required: bool = True, example: str | None = None) -> Json:
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = json.loads(example)
    return {"required": required, "content": {"application/json": content}}


def ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def fields(required: Sequence[str] = (), **properties: Json) -> Json:
    """An object; without `required` all of them are."""
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def wishes(**properties: Json) -> Json:
    """An object of which nothing is required."""
    return {"type": "object", "properties": properties}


def each(items: Json) -> Json:
    return {"type": "array", "items": items}
