"""Tests that a fact that several parts need is written in one place, and that the others derive from it."""

import ast
from dataclasses import MISSING, fields

import pytest

from models.reference import noop_spec
from models.spec import Limits, ModelSpec, Resources, TensorSpec
from serving.api.metadata import model_config
from serving.cluster.limits import max_ongoing_requests
from serving.config import LimitSettings, ModelSettings, ResourceSettings, ServerSettings, TensorSettings
from serving.core.sizes import LARGEST_ROWS
from serving.port_ranges import FAST_GRPC, FAST_GRPC_DISTANCE, RAY_GRPC, RAY_HTTP
from serving.runtime.engine import Engine
from serving.testing.backend import EchoBackend
from serving.testing.models import ScriptedModel
from tests.api.conftest import model
from tests.tidy.sources import sources
from tests.tidy.tables import ROOT

ALL = sources("serving")


def texts(module: str) -> set[str]:
    """Returns every string in the module, the fixed parts of f-strings included, but not its docstrings."""
    (source,) = [source for source in ALL if source.module == module]
    statements = [node for node in ast.walk(source.tree) if not isinstance(node, ast.Expr)]
    found = {id(child) for node in statements for child in ast.iter_child_nodes(node)}
    constants = [node for node in ast.walk(source.tree) if isinstance(node, ast.Constant) and id(node) in found]
    return {node.value for node in constants if isinstance(node.value, str)}


SERVING = [source.module for source in ALL if source.module.startswith("serving.")]


@pytest.mark.parametrize(
    ("fact", "is_it"),
    [
        ("the name of the front", lambda text: text == "front"),
        ("where models are found", lambda text: text.endswith("/v2/models/")),
        ("the characters of a model's name", lambda text: text.endswith("A-Za-z0-9._-")),
    ],
)
def test_a_name_is_spelt_in_one_file(fact: str, is_it) -> None:  # type: ignore[no-untyped-def]
    assert {module for module in SERVING if any(map(is_it, texts(module)))} == {"serving.names"}, fact


def test_no_ports_of_replicas_overlap_and_all_are_documented() -> None:
    ranges = (RAY_HTTP, RAY_GRPC, FAST_GRPC)
    assert len(set().union(*ranges)) == sum(map(len, ranges))
    documented = (ROOT / "docs/configuration.md").read_text()
    assert f"({RAY_HTTP[0]} to {RAY_HTTP[-1]}, for gRPC {RAY_GRPC[0]} to {RAY_GRPC[-1]})" in documented
    assert f"{FAST_GRPC_DISTANCE:,} above those ports ({FAST_GRPC[0]} to {FAST_GRPC[-1]})" in documented


@pytest.mark.parametrize("port", [ports[at] for ports in (RAY_HTTP, RAY_GRPC, FAST_GRPC) for at in (0, -1)])
def test_no_server_may_listen_on_a_port_of_replicas(port: int) -> None:
    for key in ("http_port", "grpc_port"):
        with pytest.raises(ValueError, match=f"{key}: {port} is used by"):
            ServerSettings.model_validate({key: port})


def test_the_largest_batch_without_a_bound_is_the_same_everywhere() -> None:
    spec = noop_spec()
    assert spec.max_batch_rows is None
    assert max_ongoing_requests(spec) == spec.limits.max_queue_requests + 2 * LARGEST_ROWS
    served = model("m", ("x", "FP32", (-1, 2)), backend=EchoBackend())
    assert model_config(served)["max_batch_size"] == LARGEST_ROWS
    assert f"(`limits.max_batch_rows` or {LARGEST_ROWS})" in (ROOT / "docs/configuration.md").read_text()


def test_an_engine_without_a_bound_computes_as_many_rows_at_once() -> None:
    assert Engine([ScriptedModel(limits=Limits())]).batcher.sizes.largest_rows == LARGEST_ROWS


FROM_ELSEWHERE = {"folder": "of the settings file", "batched": "as the model says"}
FROM_THE_REGISTRY = {"inputs", "outputs"}  # a model that is not from there needs them, which a validator says


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        (ModelSettings, ModelSpec),
        (LimitSettings, Limits),
        (ResourceSettings, Resources),
        (TensorSettings, TensorSpec),
    ],
)
def test_settings_have_every_fact_of_the_spec_with_its_default(settings: type, spec: type) -> None:
    facts = {field.name: field for field in fields(spec) if field.init and field.name not in FROM_ELSEWHERE}
    assert facts.keys() <= settings.model_fields.keys(), "describe the new field in serving/config.py"
    for name, fact in facts.items():
        setting = settings.model_fields[name]
        if name in FROM_THE_REGISTRY:
            continue
        assert setting.is_required() == (fact.default is fact.default_factory is MISSING), name
        if fact.default is not MISSING:
            wanted = list(fact.default) if isinstance(fact.default, tuple) else fact.default
            assert setting.get_default(call_default_factory=True) == wanted, name


def test_every_setting_of_a_model_arrives_in_its_spec() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    least = {"name": "m", "factory": "a:b", "inputs": [tensor], "outputs": [tensor | {"name": "y"}]}
    unlike = {
        "version": "2",
        "options": {"depth": 2},
        "latency_budget_ms": 5.0,
        "limits": {"max_batch_rows": 2},
        "resources": {"cpus": 2.0},
        "replicas": 2,
        "decoupled": True,
        "state": [tensor | {"name": "total"}],
        "execution": "eager",
        "precision": "bf16",
        "channels_last": True,
        "tolerance": 0.5,
        "labels": {"y": ["cat", "dog"]},
        "description": "doubles",
        "example": "{}",
    }
    asked = {field.name for field in fields(ModelSpec) if field.init} - FROM_ELSEWHERE.keys() - least.keys()
    assert unlike.keys() == asked, "give the new field a value other than its default"
    for name, value in unlike.items():
        before, after = (ModelSettings.model_validate(least | more).spec() for more in ({}, {name: value}))
        changed = {
            field.name for field in fields(ModelSpec) if getattr(before, field.name) != getattr(after, field.name)
        }
        assert changed == {name}
