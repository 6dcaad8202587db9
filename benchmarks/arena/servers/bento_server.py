"""BentoML with its adaptive batching: POST {"bodies": [...]} to /noop, /mlp, /sentences, /photographs.

It batches JSON arrays only, not bare bytes, so rows are sent as numbers and photographs in base64.
`bentoml serve bento_server:Works --port 8000`."""

import base64

import bentoml
import numpy as np
import work


def options(name: str) -> dict:
    objective_ms = work.OBJECTIVE_MS[name]
    return {"batchable": True, "max_batch_size": work.MAX_BATCH, "max_latency_ms": objective_ms, "route": f"/{name}"}


@bentoml.service(workers=1)
class Works:
    def __init__(self) -> None:
        self.answer = {name: work.load(name) for name in work.WORKS}

    @bentoml.api(**options("noop"))
    def noop(self, bodies: np.ndarray) -> np.ndarray:
        return self._rows("noop", list(bodies))

    @bentoml.api(**options("mlp"))
    def mlp(self, bodies: np.ndarray) -> np.ndarray:
        return self._rows("mlp", [body.astype(np.float32).tobytes() for body in bodies])

    @bentoml.api(**options("sentences"))
    def sentences(self, bodies: list[str]) -> np.ndarray:
        return self._rows("sentences", [body.encode() for body in bodies])

    @bentoml.api(**options("photographs"))
    def photographs(self, bodies: list[str]) -> np.ndarray:
        return self._rows("photographs", [base64.b64decode(body) for body in bodies])

    def _rows(self, name: str, bodies: list) -> np.ndarray:
        return np.stack([np.frombuffer(answer, np.float32) for answer in self.answer[name](bodies)])
