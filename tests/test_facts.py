"""Facts that several parts need stand in one place, and what is derived from them is."""

import ast

import pytest

from serving.config import ServerSettings
from serving.port_ranges import FAST_GRPC, FAST_GRPC_DISTANCE, RAY_GRPC, RAY_HTTP
from tests.tidy.sources import sources
from tests.tidy.tables import ROOT

ALL = sources("serving")


def texts(module: str) -> set[str]:
    """Every text in the module, the fixed parts of f-strings included; not its docstrings."""
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


def test_no_ports_of_replicas_overlap_and_all_are_told_in_the_documentation() -> None:
    ranges = (RAY_HTTP, RAY_GRPC, FAST_GRPC)
    assert len(set().union(*ranges)) == sum(map(len, ranges))
    told = (ROOT / "docs/configuration.md").read_text()
    assert f"({RAY_HTTP[0]} to {RAY_HTTP[-1]}, for gRPC {RAY_GRPC[0]} to {RAY_GRPC[-1]})" in told
    assert f"{FAST_GRPC_DISTANCE:,} above those ports ({FAST_GRPC[0]} to {FAST_GRPC[-1]})" in told


@pytest.mark.parametrize("port", [ports[at] for ports in (RAY_HTTP, RAY_GRPC, FAST_GRPC) for at in (0, -1)])
def test_no_server_may_listen_on_a_port_of_replicas(port: int) -> None:
    for key in ("http_port", "grpc_port"):
        with pytest.raises(ValueError, match=f"{key}: {port} is used by"):
            ServerSettings.model_validate({key: port})
