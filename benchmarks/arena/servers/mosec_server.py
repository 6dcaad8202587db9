"""Mosec with its own dynamic batching: POST bytes to /noop, /mlp, /sentences, /photographs. Arguments are Mosec's."""

import work
from mosec import Runtime, Server, Worker


def worker(name: str) -> type[Worker]:
    class Work(Worker):
        def __init__(self) -> None:
            super().__init__()
            self.answer = work.load(name)

        def deserialize(self, data: bytes) -> bytes:
            return data

        def serialize(self, data: bytes) -> bytes:
            return data

        def forward(self, data: list[bytes]) -> list[bytes]:
            return self.answer(data)

    # Mosec's processes are spawned and import the class by name.
    Work.__name__ = Work.__qualname__ = name.capitalize()
    globals()[Work.__name__] = Work
    return Work


WORKERS = {name: worker(name) for name in work.WORKS}

if __name__ == "__main__":
    server = Server()
    server.register_runtime(
        {
            f"/{name}": [Runtime(kind, num=1, max_batch_size=work.MAX_BATCH, max_wait_time=work.MAX_WAIT_MS)]
            for name, kind in WORKERS.items()
        }
    )
    server.run()
