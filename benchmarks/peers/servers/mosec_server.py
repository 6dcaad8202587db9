"""Mosec with its own dynamic batching: `mosec_server.py --address 127.0.0.1 --port 8310`; POST bytes to /noop, /mlp."""

from mosec import Runtime, Server, Worker

MAX_BATCH = 64
MAX_WAIT_MS = 2


class RawBytes(Worker):
    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data


class Noop(RawBytes):
    def forward(self, data: list[bytes]) -> list[bytes]:
        return [b"\0\0\0\0"] * len(data)


class Mlp(RawBytes):
    def __init__(self) -> None:
        super().__init__()
        import mlp

        self.answer, self.model = mlp.answer, mlp.build()

    def forward(self, data: list[bytes]) -> list[bytes]:
        return self.answer(self.model, data)


if __name__ == "__main__":
    server = Server()
    server.register_runtime(
        {
            f"/{name}": [Runtime(worker, num=1, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS)]
            for name, worker in (("noop", Noop), ("mlp", Mlp))
        }
    )
    server.run()
