"""LitServe with its own batching: POST bytes to /noop, /mlp, /sentences, /photographs on `--port`."""

import argparse
from typing import Annotated

import litserve
import work
from fastapi import Body, Response


class Work(litserve.LitAPI):
    def __init__(self, name: str) -> None:
        super().__init__(max_batch_size=work.MAX_BATCH, batch_timeout=work.MAX_WAIT_MS / 1000, api_path=f"/{name}")
        self.name = name

    def setup(self, device: str) -> None:
        self.answer = work.load(self.name)

    # FastAPI passes bare bytes if the content type is not JSON.
    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return list(inputs)

    def predict(self, bodies: list[bytes]) -> list[bytes]:
        return self.answer(bodies)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    # One timeout for all works; it is compared with the time in the queue.
    timeout_s = max(work.OBJECTIVE_MS.values()) / 1000
    server = litserve.LitServer([Work(name) for name in work.WORKS], accelerator="cpu", timeout=timeout_s)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
