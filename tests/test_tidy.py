"""Checks the sources against the rules in `tests/tidy`: permitted imports, clocks, tasks, prints and more.

Also tests that every rule fires where it is broken, in each spelling, and that every permission in the tables is used.
"""

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping

import pytest

from tests.tidy import rules, tables
from tests.tidy.rules import (
    apart_offences,
    benchmark_offences,
    clock_offences,
    core_offences,
    docstring_offences,
    house_offences,
    later_offences,
    opening_offences,
    print_offences,
    proxy_offences,
    silence_offences,
    task_offences,
    third_party_offences,
    undeclared_offences,
)
from tests.tidy.sources import Source, source_of, sources, within
from tests.tidy.tables import PACKAGES, ROOT

Rule = Callable[..., list[str]]

SHIPPED = sources(*PACKAGES)
EVERYWHERE = [*SHIPPED, *sources("tests", "benchmarks")]
KEPT_BY_ALL = [later_offences, benchmark_offences, opening_offences]
RULES = [rule for name, rule in vars(rules).items() if name.endswith("_offences")]

# Sources that break a rule: by rule and module.
BROKEN: dict[Rule, dict[str, list[str]]] = {
    house_offences: {
        "serving.core.queue": [
            "from serving.runtime import engine",
            "import serving.runtime.engine as e",
            "from ..runtime import engine",
            "from importlib import import_module\nimport_module('serving.runtime.engine')",
        ],
        "serving.api.http.app": ["import models.spec"],
        "serving.newcomer": ["x = 1"],
        "models.mine": ["from serving.core.clock import Clock"],
        "loadtest.shot": ["from serving.core import outcome"],
    },
    apart_offences: {
        "serving.api.dispatch": ["from serving.api.http import app"],
        "serving.api.http.app": ["from serving.api.grpc.service import GrpcService"],
        "serving.api.grpc.service": ["import serving.api.http.front"],
    },
    third_party_offences: {
        "serving.core.queue": ["import numpy as np"],
        "serving.runtime.engine": ["def f():\n    import ray", "__import__('ray')", "import never_heard_of"],
        "models.reference": ["from torch import nn"],
    },
    undeclared_offences: {"serving.cluster.app": ["import never_heard_of", "import grp_c"]},
    core_offences: {"serving.core.queue": [f"import {name}" for name in tables.OUTSIDE_CORE]},
    clock_offences: {
        "serving.runtime.engine": [
            "import time\nnow = time.monotonic_ns",
            "import time as clock\nclock.time()",
            "from time import perf_counter",
            "from time import time_ns as now",
            "from datetime import UTC, datetime\ndatetime.now(UTC)",
            "import datetime as dt\ndt.datetime.utcnow()",
        ]
    },
    task_offences: {
        "serving.runtime.engine": [
            "import asyncio\nasyncio.create_task(f())",
            "import asyncio as aio\naio.create_task(f())",
            "import asyncio\nasyncio.ensure_future(f())",
            "import asyncio\nasyncio.Task(f())",
            "import asyncio\nasyncio.run_coroutine_threadsafe(f(), loop)",
            "import asyncio\nasyncio.get_running_loop().create_task(f())",
            "from asyncio import create_task",
            "from asyncio import ensure_future as begin",
            "from asyncio import Task\nTask(f())",
            "loop.create_task(f())",
            "def g(self):\n    self._loop.create_task(f())",
            "def g(self):\n    loops[0].create_task(f())",
            "start = loop.create_task",
            "getattr(loop, 'create_task')(f())",
            "async def g():\n    async with TaskGroup() as x:\n        pass\nasync def h(x):\n    x.create_task(f())",
        ]
    },
    silence_offences: {
        "models.mine": [
            "try:\n    f()\nexcept Exception:\n    pass",
            "try:\n    f()\nexcept:\n    pass",
            "try:\n    f()\nexcept (OSError, BaseException):\n    ...",
            "for x in y:\n    try:\n        f()\n    except Exception:\n        continue",
            "import contextlib\nwith contextlib.suppress(Exception):\n    f()",
            "from contextlib import suppress\nwith suppress(OSError, BaseException):\n    f()",
        ]
    },
    print_offences: {
        "serving.core.queue": [
            "print(1)",
            "say = print",
            "import builtins\nbuiltins.print(1)",
            "import sys\nsys.stdout.write('')",
            "from sys import stderr",
        ]
    },
    proxy_offences: {
        "serving.top": [
            "import urllib.request\nurllib.request.urlopen(url)",
            "from urllib.request import urlopen",
            "from urllib import request\nrequest.urlopen(url)",
        ]
    },
    docstring_offences: {"serving.core.queue": ["x = 1"]},
    opening_offences: {
        "serving.core.queue": ['"""Which request is next."""', 'def f():\n    """As `g`, but late."""'],
    },
    later_offences: {"serving.core.queue": [f"# {word}: do it" for word in rules.LATER]},
    benchmark_offences: {
        "tests.core.test_deferral": ["from benchmarks.simulation.laws import SET_A", "import benchmarks.gpu"],
        "serving.testing.clock": ["from benchmarks import gpu"],
    },
}
KEPT: dict[Rule, dict[str, list[str]]] = {
    house_offences: {
        "serving.runtime.engine": ["from serving.core.clock import Clock\nfrom models.base import Model"],
        "serving.core.queue": ["from . import request"],
    },
    apart_offences: {
        "serving.api.http.app": ["from serving.api.http import front", "from serving.api import dispatch"]
    },
    third_party_offences: {
        "serving.cluster.app": ["from ray import serve"],
        "models.pytorch.runner": ["import torch.nn"],
    },
    undeclared_offences: {"serving.cluster.app": ["import ray", "import grpc_reflection", "import json"]},
    clock_offences: {
        "serving.core.clock": ["import time\ntime.monotonic_ns()"],
        "serving.runtime.engine": ["loop.time()", "import time\ntime.sleep"],
    },
    task_offences: {
        "serving.runtime.engine": [
            "async def g():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(f())",
            "def g(group: asyncio.TaskGroup) -> None:\n    group.create_task(f())",
            "task: asyncio.Task[None]",
        ]
    },
    silence_offences: {"models.mine": ["try:\n    f()\nexcept OSError:\n    pass"]},
    benchmark_offences: {"tests.benchmarks.test_gpu": ["from benchmarks import gpu"]},
}


def listed(offences: list[str]) -> str:
    return "\n" + "\n".join(offences)


def name_of(rule: object) -> str:
    return getattr(rule, "__name__", "").removesuffix("_offences")


def stories(texts: Mapping[Rule, Mapping[str, Collection[str]]]) -> list[object]:
    return [
        pytest.param(rule, module, text, id=f"{name_of(rule)}-{text!r}")
        for rule, modules in texts.items()
        for module, lines in modules.items()
        for text in lines
    ]


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_the_sources_keep_the_rule(rule: Rule) -> None:
    offences = rule(EVERYWHERE if rule in KEPT_BY_ALL else SHIPPED)
    assert not offences, listed(offences)


@pytest.mark.parametrize(("rule", "module", "text"), stories(BROKEN))
def test_a_rule_finds_code_that_breaks_it(rule: Rule, module: str, text: str) -> None:
    assert rule([source_of(module, text)])


@pytest.mark.parametrize(("rule", "module", "text"), stories(KEPT))
def test_a_rule_allows_code_that_keeps_it(rule: Rule, module: str, text: str) -> None:
    assert not rule([source_of(module, text)])


def test_every_rule_is_seen_to_fire() -> None:
    assert set(BROKEN) == set(RULES)


def lists_with_one_less(table: Mapping[str, Collection[str]]) -> Iterator[tuple[str, dict[str, Collection[str]]]]:
    for key, allowed in table.items():
        yield key, {other: places for other, places in table.items() if other != key}
        for one in allowed:
            yield f"{key}: {one}", {**table, key: [place for place in allowed if place != one]}


def dicts_with_one_less(table: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    for key in table:
        yield key, {other: value for other, value in table.items() if other != key}


def unused(rule: Rule, found: list[Source], argument: str, tables: Iterator[tuple[str, object]]) -> list[str]:
    """Returns the permissions that can be removed without any file breaking the rule."""
    return [permission for permission, rest in tables if not rule(found, **{argument: rest})]


@pytest.mark.parametrize(
    ("rule", "argument", "table"),
    [(house_offences, "house", tables.HOUSE), (third_party_offences, "allowed", tables.THIRD_PARTY)],
    ids=["HOUSE", "THIRD_PARTY"],
)
def test_every_permission_to_import_is_used(rule: Rule, argument: str, table: dict[str, tuple[str, ...]]) -> None:
    left_over = unused(rule, SHIPPED, argument, lists_with_one_less(table))
    assert not left_over, f"no file needs these permissions; delete them:{listed(left_over)}"


@pytest.mark.parametrize(
    ("rule", "argument", "table"),
    [
        (clock_offences, "owners", tables.CLOCK_OWNERS),
        (task_offences, "owners", tables.TASK_OWNERS),
        (print_offences, "printers", tables.PRINTERS),
        (undeclared_offences, "distributions", tables.DISTRIBUTIONS),
        (undeclared_offences, "optional", tables.OPTIONAL),
    ],
    ids=["CLOCK_OWNERS", "TASK_OWNERS", "PRINTERS", "DISTRIBUTIONS", "OPTIONAL"],
)
def test_every_exception_to_a_rule_is_used(rule: Rule, argument: str, table: dict[str, str]) -> None:
    left_over = unused(rule, SHIPPED, argument, dicts_with_one_less(table))
    assert not left_over, f"no file needs these exceptions; delete them:{listed(left_over)}"


def test_a_permission_that_no_file_needs_is_noticed() -> None:
    engine = source_of("serving.runtime.engine", "import serving.core.clock\nimport ray")
    house = {"serving.runtime": ("serving.core", "models.base"), "serving.store": ()}
    assert unused(house_offences, [engine], "house", lists_with_one_less(house)) == [
        "serving.runtime: models.base",
        "serving.store",
    ]
    owners = {"serving.runtime": "waits", "serving.store": "never written"}
    clock = source_of("serving.runtime.engine", "import time\ntime.time()")
    assert unused(clock_offences, [clock], "owners", dicts_with_one_less(owners)) == ["serving.store"]


def loaded_with(modules: Collection[str], unwanted: Collection[str]) -> list[str]:
    """Returns which of the unwanted modules are loaded in a new process that imports `modules`."""
    script = f"import sys, importlib\nfor name in {list(modules)}: importlib.import_module(name)\n"
    script += f"print(' '.join(sorted({set(unwanted)} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "package",
    [
        "serving.core",
        "serving.scaling",
        "serving.protocol",
        "serving.api",
        "serving.runtime",
        "serving.config",
        "serving.traffic",
        "serving.store",
        "serving.gateway",
    ],
)
def test_a_package_does_not_load_torch_or_ray(package: str) -> None:
    loaded = loaded_with([source.module for source in SHIPPED if within(source.module, [package])], {"ray", "torch"})
    assert not loaded, f"{package} loads {loaded}: import it where it is used"


def test_the_command_answers_before_torch_or_ray_is_loaded() -> None:
    assert not loaded_with(["serving.cli"], {"ray", "torch", "numpy"})


def test_a_module_that_is_loaded_is_noticed() -> None:
    assert loaded_with(["serving.runtime.engine"], {"numpy", "ray"}) == ["numpy"]
