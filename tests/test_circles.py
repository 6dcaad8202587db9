"""Tests that no module imports itself through other modules, imports inside functions included."""

from graphlib import CycleError, TopologicalSorter

import pytest

from tests.tidy.sources import sources
from tests.tidy.tables import PACKAGES

ALL = sources(*PACKAGES)


def graph() -> dict[str, set[str]]:
    """Returns the modules that each module imports, imports inside functions included."""
    modules = {source.module for source in ALL}
    return {source.module: {name for _, name in source.imports if name in modules} - {source.module} for source in ALL}


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as circle:
        pytest.fail(f"a circle of imports: {' -> '.join(reversed(circle.args[1]))}; pass a value or a function down")


def test_a_circle_of_imports_is_noticed() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter(graph() | {"loadtest.spec": {"loadtest.loading"}}).prepare()
