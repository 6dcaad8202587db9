"""Measures the MLP without a server: rows per second by batch size, and its answer to the common row.

Prints JSON. The best rate is the upper bound for a server with one torch thread."""

import argparse
import json
import time

import mlp
import torch

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def rows_per_second(model: torch.nn.Module, batch: int, seconds: float) -> float:
    rows = torch.full((batch, mlp.WIDTH), 0.5)
    model(rows)
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        model(rows)
        done += batch
    return done / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="per batch size")
    seconds = parser.parse_args().seconds
    with torch.inference_mode():
        model = mlp.build()
        answer = model(torch.full((1, mlp.WIDTH), 0.5))[0].tolist()
        measured = {str(batch): rows_per_second(model, batch, seconds) for batch in BATCHES}
    print(json.dumps({"rows_per_s": measured, "answer": answer}))


if __name__ == "__main__":
    main()
