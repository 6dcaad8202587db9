"""Ray Serve with its own @serve.batch, as in its documentation, without any code of Headway.

`ray_server.py --port 8000 --folder DIR`; POST raw bytes to /noop or /mlp. The environment of this process selects the
path of a request (Python proxy or HAProxy). It starts its own Ray and stops it on SIGTERM."""

import argparse
import signal
import threading

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

MAX_BATCH = 64
MAX_WAIT_S = 0.002

deployment = serve.deployment(
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 0},
    logging_config={"enable_access_log": False, "log_level": "WARNING"},
)


@deployment
class Noop:
    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT_S)
    async def forward(self, bodies: list[bytes]) -> list[bytes]:
        return [b"\0\0\0\0"] * len(bodies)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.forward(await request.body()))


@deployment
class Mlp:
    def __init__(self) -> None:
        import mlp

        self.answer, self.model = mlp.answer, mlp.build()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT_S)
    async def forward(self, bodies: list[bytes]) -> list[bytes]:
        return self.answer(self.model, bodies)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.forward(await request.body()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True, help="folder of Ray's temporary files and sockets; must be short")
    arguments = parser.parse_args()
    asked_to_stop = threading.Event()

    ray.init(address="local", include_dashboard=False, num_cpus=2, _temp_dir=arguments.folder, log_to_driver=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    for name, served in (("noop", Noop), ("mlp", Mlp)):
        serve.run(served.bind(), name=name, route_prefix=f"/{name}")
    print("ready", flush=True)
    asked_to_stop.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
