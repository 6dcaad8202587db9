"""Lends the tests of this folder the Valkey of the stores' tests."""

from tests.store.conftest import valkey

__all__ = ["valkey"]
