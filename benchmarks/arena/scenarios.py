"""The requests of the arena: each work in each form that the contestants take, from the same bodies."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.arena.servers.work import WORKS
from loadtest.scenario import Inputs, Scenario, task

FORMS = ("oip", "raw", "json")
_ROW = 1024
CONTENT_TYPES = {"raw": "application/octet-stream", "json": "application/json"}


def scenario_of(work: str, form: str) -> Path:
    """Returns the scenario's path for the load generator."""
    return Path(f"{__file__}:{_name(work, form)}")


def wire_of(form: str) -> str:
    return "http-binary" if form == "oip" else "http-raw"


def body_of(work: str, scenario: Scenario) -> bytes:
    """Returns the body of a request, the same for all contestants: a row of 4 KB, a sentence of mixed length, or a
    JPEG."""
    if work == "sentences":
        return scenario.sentence("lognormal(12, 0.8)")
    if work == "photographs":
        return scenario.photograph("lognormal(300, 0.3)")
    return scenario.array((1, _ROW)).tobytes()


def as_json(work: str, body: bytes) -> bytes:
    """Encodes a body for BentoML, which batches JSON arrays."""
    if work == "sentences":
        value: object = body.decode()
    elif work == "photographs":
        value = base64.b64encode(body).decode()
    else:
        value = np.frombuffer(body, np.float32).tolist()
    return json.dumps({"bodies": [value]}).encode()


def _ask(work: str, form: str) -> Callable[[Scenario], Inputs]:
    def ask(self: Scenario) -> Inputs:
        body = body_of(work, self)
        if form == "json":
            return {"body": as_json(work, body)}
        if form == "raw":
            return {"body": body}
        tensor = self.inputs[0]
        return {tensor.name: [body] if tensor.datatype == "BYTES" else np.frombuffer(body, np.float32).reshape(1, -1)}

    return task(ask)


def _name(work: str, form: str) -> str:
    return f"{work.capitalize()}{form.capitalize()}"


for _work in WORKS:
    for _form in FORMS:
        _headers = {"content-type": CONTENT_TYPES[_form]} if _form in CONTENT_TYPES else {}
        _members = {"ask": _ask(_work, _form), "headers": _headers, "__module__": __name__}
        globals()[_name(_work, _form)] = type(_name(_work, _form), (Scenario,), _members)
