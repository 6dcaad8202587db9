"""What is asked: a class with weighted tasks, as people write them for locust, and how one is found in a file.

A task returns the inputs of one request instead of sending it, so that the same task can be shot on a schedule, by
users who wait for their answers, or by locust. Loading imports the file: it is code, and runs."""

import importlib.util
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, overload

import numpy as np

from loadtest import samples
from loadtest.distribution import Distribution
from loadtest.spec import BadSpec
from serving.protocol.messages import Tensor, TensorDescription
from serving.protocol.tensors import numpy_dtype

Inputs = Mapping[str, Any]
Method = TypeVar("Method", bound=Callable[..., Inputs])
_MARK = "_loadtest_task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of request. `model` "": the scenario's. `deadline_ms` 0: none. `priority` 0: the default; 1 is the most
    urgent."""

    name: str
    weight: float
    make: Callable[["Scenario"], Inputs]
    model: str = ""
    priority: int = 0
    deadline_ms: float = 0.0
    tenant: str | None = None  # None: any tenant of the scenario

    def __post_init__(self) -> None:
        for field, value in (("weight", self.weight), ("deadline_ms", self.deadline_ms), ("priority", self.priority)):
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise BadSpec(f"tasks.{self.name}.{field}: must be a number and not negative, got {value!r}")


@overload
def task(weight: Method) -> Method: ...


@overload
def task(
    weight: float = 1, *, model: str = "", priority: int = 0, deadline_ms: float = 0.0
) -> Callable[[Method], Method]: ...


def task(weight: float | Method = 1, *, model: str = "", priority: int = 0, deadline_ms: float = 0.0) -> Any:
    """Marks a method of a Scenario as a task: `@task`, `@task(3, deadline_ms=200)`. Frequency is proportional to
    weight."""
    if callable(weight):  # used without brackets, as in locust
        return task(1)(weight)
    options = {"weight": weight, "model": model, "priority": priority, "deadline_ms": deadline_ms}

    def mark(method: Method) -> Method:
        setattr(method, _MARK, options)
        return method

    return mark


class Scenario:
    """The base class of scenarios. The tasks of a subclass are its methods marked with `@task`.

    One instance per task and tenant is passed to the task: `self.random` (seeded; use no other source of randomness),
    `self.inputs` (the model's declared inputs), `self.tenant`, and the methods below."""

    question: ClassVar[str] = ""  # the question that a run answers
    model: ClassVar[str] = ""  # the model of tasks that name none; "": the URL's
    tenants: ClassVar[Mapping[str, float]] = {}  # weights by tenant; empty: no tenant is sent
    headers: ClassVar[Mapping[str, str]] = {}  # sent with every request; gRPC: metadata
    think: ClassVar[str] = "0"  # seconds between a user's answer and next request; closed loop only
    arrivals: ClassVar[str] = "poisson"
    rate: ClassVar[float] = 0.0  # requests per second; 0: set on the command line
    seconds: ClassVar[float] = 10.0
    variety: ClassVar[int] = 32  # different requests per task and tenant, prepared before the run
    sequence: ClassVar[Sequence[int]] = ()  # the order of tasks by index, repeated; empty: drawn by weight

    def __init__(self, generator: random.Random, inputs: Sequence[TensorDescription] = (), tenant: str = "") -> None:
        self.random = generator
        self.inputs = inputs
        self.tenant = tenant

    @classmethod
    def tasks(cls) -> list[Task]:
        """Returns the tasks in the order of their definition. Raises BadSpec if there is none."""
        methods = {}
        for owner in reversed(cls.__mro__):
            methods.update({name: method for name, method in vars(owner).items() if hasattr(method, _MARK)})
        if not methods:
            raise BadSpec(f"{cls.__name__}: no method is marked with @task")
        return [Task(name=name, make=method, **getattr(method, _MARK)) for name, method in methods.items()]

    def number(self, distribution: str | float) -> int:
        """Draws a whole number, at least 1: `self.number("uniform(1, 8)")`."""
        return Distribution.parse(distribution, "number").size(self.random)

    def sentence(self, words: str | float = "lognormal(12, 0.6)") -> bytes:
        """Returns English prose of this many words, UTF-8."""
        return samples.sentence(Distribution.parse(words, "words").size(self.random), self.random)

    def photograph(self, side: str | float = "lognormal(300, 0.3)") -> bytes:
        """Returns a JPEG whose longer side has this many pixels."""
        return samples.photograph(Distribution.parse(side, "side").size(self.random), self.random)

    def array(self, shape: Sequence[int], datatype: str = "FP32") -> Tensor:
        """Draws an array of numbers: floats in [0, 1), integers in [0, 100), since they are often indices."""
        generator = np.random.default_rng(self.random.getrandbits(64))
        if datatype == "BOOL":
            return generator.integers(0, 2, size=shape).astype(bool)
        if "INT" in datatype:
            return generator.integers(0, 100, size=shape).astype(numpy_dtype(datatype))
        return generator.random(size=shape, dtype=np.float32).astype(numpy_dtype(datatype))

    def fill(
        self, rows: str | float = 1, length: str | float = 16, words: str | float = "", side: str | float = ""
    ) -> Inputs:
        """Makes up values for every declared input: `rows` rows; other variable dimensions have size `length`. Raises
        BadSpec if the wire has no metadata.

        BYTES are sentences of `words` words, or photographs if `side` is given."""
        if not self.inputs:
            raise BadSpec("this wire has no metadata: write a task that returns its inputs")
        row_count, lengths = self.number(rows), self.number(length)
        made: dict[str, Any] = {}
        for tensor in self.inputs:
            # The first dimension of a model without rows may be fixed or missing.
            open_sizes = (row_count, *[lengths] * len(tensor.shape))
            shape = tuple(open_sizes[index] if size < 0 else size for index, size in enumerate(tensor.shape))
            if tensor.datatype != "BYTES":
                made[tensor.name] = self.array(shape, tensor.datatype)
                continue
            text = np.empty(shape, dtype=object)
            for position in np.ndindex(shape):
                text[position] = self.photograph(side) if side else self.sentence(words or "lognormal(12, 0.6)")
            made[tensor.name] = text
        return made


def load(path: Path) -> type[Scenario]:
    """The scenario in a `.toml`, `.py` or recorded `.jsonl` file; `file.py:Name` for one of several. Raises BadSpec."""
    name = ""
    if path.name.partition(".py:")[2]:
        name = path.name.partition(".py:")[2]
        path = path.with_name(path.name.partition(":")[0])
    if not path.is_file():
        raise BadSpec(f"scenario: there is no file {path}")
    if path.suffix == ".toml":
        from loadtest.scenario_file import read  # it makes Scenarios itself

        return read(path)
    if path.suffix == ".jsonl":
        from loadtest import recording

        return recording.read(path)
    return _from_python(path, name)


def _from_python(path: Path, name: str) -> type[Scenario]:
    specification = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise BadSpec(f"scenario: expected a .py, .toml or .jsonl file, got {path}")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise BadSpec(f"scenario: {path} cannot be imported: {type(error).__name__}: {error}") from error
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Scenario) and value.__module__ == module.__name__
    }
    if name and name not in found:
        raise BadSpec(f"scenario: {path} has no Scenario {name!r}; it has {', '.join(found) or 'none'}")
    if not name and len(found) != 1:
        raise BadSpec(f"scenario: {path} has {', '.join(found) or 'no Scenario'}; name one with {path}:NAME")
    return found[name] if name else next(iter(found.values()))
