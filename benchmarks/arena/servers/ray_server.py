"""Ray Serve with its own @serve.batch: POST bytes to /noop, /mlp, /sentences, /photographs.

`ray_server.py --port 8000 --folder DIR [--tuned]`. Untuned: the defaults of @serve.batch (10 rows, 10 ms) and of a
deployment. The environment of this process selects the path of a request. It starts its own Ray."""

import argparse
import signal
import threading

import ray
import work
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

QUIET = {"enable_access_log": False, "log_level": "WARNING"}


def deployment(name: str, tuned: bool) -> serve.Application:
    batch = {"max_batch_size": work.MAX_BATCH, "batch_wait_timeout_s": work.MAX_WAIT_MS / 1000} if tuned else {}
    # Untuned, Ray's default limit applies, which also limits every batch.
    options = {"max_ongoing_requests": 1000} if tuned else {}

    @serve.deployment(name=name, ray_actor_options={"num_cpus": 0}, logging_config=QUIET, **options)
    class Work:
        def __init__(self) -> None:
            self.answer = work.load(name)

        @serve.batch(**batch)
        async def forward(self, bodies: list[bytes]) -> list[bytes]:
            return self.answer(bodies)

        async def __call__(self, request: Request) -> Response:
            return Response(await self.forward(await request.body()))

    return Work.bind()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True, help="folder of Ray's temporary files and sockets; must be short")
    parser.add_argument("--tuned", action="store_true")
    arguments = parser.parse_args()
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    ray.init(address="local", include_dashboard=False, num_cpus=2, _temp_dir=arguments.folder, log_to_driver=False)
    for number in (signal.SIGTERM, signal.SIGINT):  # Ray has replaced the handlers
        signal.signal(number, lambda *_: asked_to_stop.set())
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    for name in work.WORKS:
        serve.run(deployment(name, arguments.tuned), name=name, route_prefix=f"/{name}")
    print("ready", flush=True)
    asked_to_stop.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
