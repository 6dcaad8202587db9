"""`python -m benchmarks.gpu`: measures the share of a GPU's speed that remains behind the engine.

Needs torch and numpy; no network, no Ray. About four minutes on one GPU, and at most eight. Each section is printed and
written when it is finished; the table is printed last, even if sections failed. Without a GPU, small models are run on
the CPU, which allows no conclusion about GPUs.
"""

import argparse
import asyncio
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.models import Subject, subjects
from benchmarks.gpu.report import Results, failures, table
from benchmarks.gpu.subject import SECTIONS, SWITCH_INTERVAL_S, Options, loop_factory, measure, noted
from models.base import Model
from models.loading import load_model

NO_GPU = "NO GPU: these are small models on the CPU, to test the benchmark itself. No number here is about a GPU."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", help="mlp, convnet, encoder, transformer; all unless named")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=SECTIONS, help="all unless named")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure of the engine")
    parser.add_argument("--rows", type=int, default=128, help="the largest batch")
    parser.add_argument(
        "--compile", type=float, default=0.0, metavar="S", help="torch.compile too, for about S seconds"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ray", action="store_true", help="saturate the engine in a process of Ray too")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="start no section later; loading takes up to 1.7 more"
    )
    parser.add_argument("--output", type=Path, default=Path(".headway/bench-gpu.json"))
    arguments = parser.parse_args()
    small = arguments.device == "cpu"
    made = partial(subjects, small=small, largest_rows=arguments.rows, gpus=0.0 if small else 1.0)
    known = made()
    wanted = arguments.models or list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"--models: {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    if arguments.ray and find_spec("ray") is None:
        parser.error("--ray: Ray is not installed here")
    began = perf_counter()
    options = Options(
        seconds=arguments.seconds,
        compile_s=arguments.compile,
        device=torch.device(arguments.device),
        sections=tuple(arguments.sections),
        subjects=made,
        load=load,
        until=began + 60 * arguments.minutes,
    )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    no_gpu = NO_GPU if small else ""
    facts = machine(no_gpu)
    results = Results(arguments.output, {"title": facts["device"], "machine": facts, "seconds": arguments.seconds})
    print(", ".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        went_well = [runner.run(measure(known[name], options, results)) for name in wanted]
        for name in wanted if arguments.ray else ():
            work = under_ray(known[name], options, results)
            went_well.append(runner.run(noted(name, "under Ray", results, work)))
    results.found["took_s"] = perf_counter() - began
    results.write()
    took_s = results.found["took_s"]
    print(
        f"\n{took_s:.0f} s; all figures in {results.path}; columns explained in docs/gpu.md\n\n{table(results.found)}"
    )
    for text in ("\n".join(failures(results.found)), no_gpu):
        if text:
            print(f"\n{text}")
    return 0 if all(went_well) else 1


async def under_ray(subject: Subject, options: Options, results: Results) -> None:
    from benchmarks.gpu.under_ray import saturated_under_ray

    found = saturated_under_ray(subject, options)
    here = results.found["models"][subject.name].get("rates", {}).get("engine_per_s")
    ratio = found.rows_per_s / here if here else None
    results.put(subject.name, "ray", {"engine_per_s": found.rows_per_s, "ratio": ratio})
    print(f"{subject.name} under Ray: {found.rows_per_s:.0f} rows/s" + (f", ratio {ratio:.2f}" if ratio else ""))


def load(subject: Subject) -> Model:
    return load_model(subject.spec)


def machine(no_gpu: str) -> dict[str, Any]:
    return {
        "device": no_gpu or torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "Python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "event loop": "uvloop" if loop_factory() else "asyncio",
    }


if __name__ == "__main__":
    sys.exit(main())
