"""A scenario prepared for one wire: all requests as bytes, encoded before the run, and their seeded order.

Equal seeds give equal bytes in equal order, for any number of processes."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import Any

import numpy as np

from loadtest.scenario import Inputs, Scenario, Task
from loadtest.spec import BadSpec
from loadtest.wires import Address, Wire
from serving.protocol.errors import BadMessage
from serving.protocol.messages import InferInput, InferRequest, Tensor, TensorDescription
from serving.protocol.tensors import datatype_of, numpy_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One encoded request, for any number of shots, with the fields by which reports group it."""

    request: Any
    task: str
    tenant: str = ""
    rows: int = 1
    deadline_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of a run. `weights`: the relative frequency of each request. `sequence`: the order of requests by
    index, repeated; if empty, requests are drawn by weight."""

    requests: Sequence[Prepared]
    weights: Sequence[float]
    sequence: Sequence[int] = ()
    _sums: Sequence[float] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sums", list(accumulate(self.weights)))

    def order(self, count: int, seed: int) -> list[int]:
        """Returns the index of the request for each of `count` shots."""
        if self.sequence:
            return list(islice(cycle(self.sequence), count))
        shares = np.asarray(self.weights) / sum(self.weights)
        drawn: list[int] = np.random.default_rng([seed, 1]).choice(len(self.requests), size=count, p=shares).tolist()
        return drawn

    def one(self, generator: random.Random) -> Prepared:
        """Draws the next request of a user with the user's own generator."""
        return generator.choices(self.requests, cum_weights=self._sums)[0]


async def prepare(
    scenario: type[Scenario], wire: Wire, address: Address, *, seed: int = 0, tenant_header: str = "x-tenant"
) -> Workload:
    """Reads the models' metadata from the server and encodes all requests. Raises BadSpec and NoMetadata."""
    tasks = scenario.tasks()
    models = {task.name: task.model or scenario.model or address.model for task in tasks}
    if nameless := [name for name, model in models.items() if not model and address.path == "/"]:
        raise BadSpec(f"tasks.{nameless[0]}.model: neither the task nor the scenario nor the URL names a model")
    inputs = {model: await wire.describe(model) for model in dict.fromkeys(models.values())}
    tenants = scenario.tenants or {"": 1.0}
    requests: list[Prepared] = []
    weights: list[float] = []
    for task in tasks:
        for tenant, share in (tenants if task.tenant is None else {task.tenant: 1.0}).items():
            # The seed contains the task's name, so that its bytes do not change when another task is added.
            maker = scenario(random.Random(f"{seed} {task.name} {tenant}"), inputs[models[task.name]], tenant)
            headers = {**scenario.headers, **({tenant_header: tenant} if tenant else {})}
            for _ in range(scenario.variety):
                requests.append(_prepared(task, maker, models[task.name], wire, headers))
                weights.append(task.weight * share / scenario.variety)
    if not sum(weights) > 0 or min(weights) < 0:
        raise BadSpec("weight: the weights of tasks and tenants must not be negative, nor all zero")
    return Workload(requests, weights, scenario.sequence)


def _prepared(task: Task, maker: Scenario, model: str, wire: Wire, headers: Mapping[str, str]) -> Prepared:
    tensors = infer_inputs(task.make(maker), maker.inputs, task.name)
    parameters: dict[str, object] = {}
    if task.priority:
        parameters["priority"] = task.priority
    if task.deadline_ms:
        parameters["timeout"] = round(task.deadline_ms * 1000)  # microseconds, as in the protocol
    try:
        request = wire.prepare(model, InferRequest(tensors, parameters=parameters), headers)
    except BadMessage as error:
        raise BadSpec(f"tasks.{task.name}: {error}") from error
    return Prepared(
        request=request,
        task=task.name,
        tenant=maker.tenant,
        rows=tensors[0].data.shape[0] if tensors[0].data.ndim else 1,
        deadline_ns=round(task.deadline_ms * 1e6) or None,
    )


def infer_inputs(inputs: Inputs, descriptions: Sequence[TensorDescription], name: str) -> tuple[InferInput, ...]:
    """Converts the values returned by a task to tensors of the declared types. Lists get the declared shape. Raises
    BadSpec."""
    declared = {tensor.name: tensor for tensor in descriptions}
    if not isinstance(inputs, Mapping) or not inputs:
        raise BadSpec(f"tasks.{name}: expected the inputs of one request by name, got {inputs!r:.80}")
    made = []
    for key, values in inputs.items():
        if declared and key not in declared:
            raise BadSpec(f"tasks.{name}: the model has no input {key!r}; it has {', '.join(declared)}")
        tensor = declared.get(key)
        array = _array(values, tensor)
        datatype = tensor.datatype if tensor else "BYTES" if array.dtype == object else datatype_of(array.dtype)
        made.append(InferInput(key, datatype, array))
    return tuple(made)


def _array(values: Any, tensor: TensorDescription | None) -> Tensor:
    if isinstance(values, np.ndarray):
        return values
    is_text = isinstance(values, bytes | str) or (tensor is not None and tensor.datatype == "BYTES")
    values = [values] if isinstance(values, bytes | str | int | float) else values
    dtype = np.dtype(object) if is_text or tensor is None else numpy_dtype(tensor.datatype)
    array = np.asarray(values, dtype=dtype)
    if tensor is not None and array.ndim < len(tensor.shape):
        rest = tensor.shape[1:]
        array = array.reshape((-1, *rest)) if min(rest, default=1) > 0 else array[None]
    return array
