"""Seconds and memory of a point-in-time join: feature rows of several views, and labels, made at random.

    python -m benchmarks.bench_history [--rows N] [--views V] [--labels L] [--memory 3GB] [--threads 2]

`--rows` are those of each view, of which 2 % are written hours late and the others within a second. The files stay in
`--folder` if it is given, and are used again. The process that joins is one of its own, so that its peak is the join's.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.features.offline import layout
from serving.features.offline.training import Limits, make_training_set
from serving.features.views import Feature, FeatureView

DAYS, DAY_US = 30, 86400 * 1_000_000
BEGIN_US = 1_700_006_400_000_000  # a midnight
BATCH = 250_000
TYPES = ("FP32", "FP32", "INT64", "FP64", "BOOL", "INT32", "BYTES", "FP32")


def view(number: int) -> FeatureView:
    made = tuple(Feature(name=f"f{index}", datatype=kind, ttl_s=7 * 86400) for index, kind in enumerate(TYPES))
    return FeatureView(name=f"view{number}", entity="user", key="user_id", features=made)


def ids(random: np.random.Generator, count: int, users: int) -> pa.Array:
    return pa.array(random.integers(0, users, count)).cast(pa.string())


def write_view(root: Path, of: FeatureView, rows: int, users: int) -> None:
    random = np.random.default_rng(int(of.name.removeprefix("view")))
    for day in range(DAYS):
        left = rows // DAYS
        while left:
            count = min(left, BATCH)
            left -= count
            event = BEGIN_US + day * DAY_US + np.sort(random.integers(0, DAY_US, count))
            delay = np.where(random.random(count) < 0.02, random.integers(0, DAY_US, count), 0)
            created = event + delay + random.integers(0, 1_000_000, count)
            numbers = random.integers(0, 1 << 20, count)
            columns = {
                feature.name: pa.array(numbers & 1 == 1 if feature.datatype == "BOOL" else numbers).cast(
                    layout.TYPES[feature.datatype]
                )
                for feature in of.features
            }
            times = [pa.array(micros).cast(layout.TIME) for micros in (event, created)]
            layout.append(root, "bench", of, layout.rows_of(of, ids(random, count, users), pa.table(columns), *times))


def write_labels(path: Path, labels: int, users: int) -> None:
    random = np.random.default_rng(99)
    schema = pa.schema([("user_id", pa.string()), ("event_ts", pa.timestamp("us", "UTC")), ("label", pa.int8())])
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, labels, BATCH):
            count = min(BATCH, labels - begin)
            at = pa.array(BEGIN_US + random.integers(0, DAYS * DAY_US, count)).cast(schema.field("event_ts").type)
            label = pa.array(random.integers(0, 2, count), pa.int8())
            writer.write_table(pa.table([ids(random, count, users), at, label], schema=schema))


def measure(folder: Path, views: int, memory: str, threads: int, by_event_time: bool) -> None:
    """Joins in this process and prints its seconds and its peak of memory."""
    began = time.perf_counter()
    made = make_training_set(
        folder / "labels.parquet",
        [view(number) for number in range(views)],
        folder / "training.parquet",
        store=folder,
        tenant="bench",
        limits=Limits(memory, threads, folder),
        time_column="event_ts",
        by_event_time=by_event_time,
    )
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    valid = sum(found.valid for features in made.found.values() for found in features.values())
    facts = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": used.ru_maxrss // 1024,
        "labels": made.labels,
        "valid": round(valid / max(1, made.labels * views * len(TYPES)), 3),
    }
    print(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000, help="rows of each view; the full size is 10000000")
    parser.add_argument("--views", type=int, default=5)
    parser.add_argument("--labels", type=int, default=None, help="a tenth of the rows if it is not given")
    parser.add_argument("--memory", default="3GB", help="the memory that DuckDB may use")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-of-event-time", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.measure:
        measure(told.folder, told.views, told.memory, told.threads, told.as_of_event_time)
        return
    with TemporaryDirectory() as temporary:
        folder = told.folder or Path(temporary)
        users = max(1, told.rows // 10)
        for number in range(told.views):
            if not layout.view_folder(folder, "bench", f"view{number}").exists():
                write_view(folder, view(number), told.rows, users)
        write_labels(folder / "labels.parquet", told.labels or told.rows // 10, users)
        again = [*sys.argv[1:], "--folder", str(folder), "--measure"]
        command = [sys.executable, "-m", "benchmarks.bench_history", *again]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
