"""Microseconds to read a ModelInferRequest of 4 KB and to write its answer: with cached layouts, without, or unchecked.

    python -m benchmarks.bench_grpc_codec [--requests N]

No sockets, no server. Compare only with numbers of the same run and machine.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from serving.protocol.grpc_codec import GrpcLayout, GrpcReplyWriter, split
from serving.protocol.pb import message
from serving.protocol.reply import OutputFormat, ReplyFormat

ROUNDS = 5
ARRAY = np.arange(1024, dtype=np.float32).reshape(1, 1024)


def request() -> bytes:
    built = message("ModelInferRequest")(model_name="m", id="7")
    built.inputs.add(name="x", datatype="FP32", shape=ARRAY.shape)
    built.raw_input_contents.append(ARRAY.tobytes())
    encoded: bytes = built.SerializeToString()
    return encoded


def ours(*, keep: bool) -> Callable[[bytes], bytes]:
    layouts: dict[bytes, GrpcLayout] = {}
    writer = GrpcReplyWriter("m", "1")
    form = ReplyFormat([OutputFormat("x", "FP32", True)])

    def turn(received: bytes) -> bytes:
        parts = split(received)
        layout = layouts.get(parts.head)
        if layout is None:
            layout = GrpcLayout(parts.head)
            if keep:
                layouts[parts.head] = layout
        return writer.write(form, layout.read(parts), parts.id)

    return turn


def bare() -> Callable[[bytes], bytes]:
    """Returns a codec that uses only protobuf, without any checks."""
    request_class, response_class = message("ModelInferRequest"), message("ModelInferResponse")

    def turn(received: bytes) -> bytes:
        parsed = request_class.FromString(received)
        given = parsed.inputs[0]
        x = np.frombuffer(parsed.raw_input_contents[0], np.float32).reshape(tuple(given.shape))
        answer = response_class(model_name=parsed.model_name, model_version="1", id=parsed.id)
        answer.outputs.add(name="x", datatype="FP32", shape=x.shape)
        answer.raw_output_contents.append(x.tobytes())
        encoded: bytes = answer.SerializeToString()
        return encoded

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    count = parser.parse_args().requests
    received = request()
    print(f"{'4 KB of FP32, echoed':28s} {'best':>8s} {'worst':>8s}   µs per request, {ROUNDS} rounds of {count}")
    for name, turn in (
        ("Headway, layouts cached", ours(keep=True)),
        ("Headway, layouts not cached", ours(keep=False)),
        ("protobuf, unchecked", bare()),
    ):
        took = []
        for _ in range(ROUNDS):
            begin = time.perf_counter_ns()
            for _ in range(count):
                turn(received)
            took.append((time.perf_counter_ns() - begin) / count / 1000)
        print(f"{name:28s} {min(took):8.2f} {max(took):8.2f}")


if __name__ == "__main__":
    main()
