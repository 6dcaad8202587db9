"""Builds the keys of everything in Redis; nothing else does.

A key is `prefix:version:kind:part:...`. Parts are percent-encoded, so that no name can contain what separates them:
tenant `a:b` with model `c` and tenant `a` with model `b:c` have different keys. No part is a hash tag of Redis
Cluster either.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

VERSION = 1  # of the layout of keys and values; a new one begins beside the old one
PREFIX = "headway"
_BEGINNING = "\0"  # stands for a part that is put in later; it is in no key


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation. prefix: sets it apart from others in the same database."""

    prefix: str = PREFIX

    def key(self, kind: str, *parts: str) -> str:
        return ":".join((_quoted(self.prefix), str(VERSION), kind, *map(_quoted, parts)))

    def quota(self, tenant: str) -> str:
        """Returns the key of a tenant's counter."""
        return self.key("quota", tenant)

    def answers(self, tenant: str, model: str) -> str:
        """Returns the beginning of the keys of a tenant's answers of a model. What follows is the digest in hex."""
        return self.key("answer", tenant, model, "")

    def all_answers(self, model: str, tenant: str | None = None) -> str:
        """Returns the pattern, as of Redis, of the keys of a model's answers, all or those of a tenant."""
        whose = "*" if tenant is None else _quoted(tenant)  # a name with a wildcard in it is percent-encoded
        return ":".join((self.key("answer"), whose, _quoted(model), "*"))

    def features(self, tenant: str, entity: str, id: str, features: Iterable[str]) -> list[str]:
        """Returns the keys of these features of one entity, in their order: its parts are encoded once for all."""
        beginning = self.key("feature", tenant, entity, id)
        return [f"{beginning}:{_quoted(feature)}" for feature in features]

    def feature_arguments(self, tenant: str, entity: str, id: str, features: tuple[str, ...]) -> str:
        """Returns the same keys as they stand in a command of Redis, see `store.mget.argument`."""
        beginning = self.key("feature", tenant, entity, id)
        return _arguments(features, len(beginning)).replace(_BEGINNING, beginning)

    def present(self) -> str:
        """Returns the key of the replicas that are present."""
        return self.key("present")


@lru_cache(1024)  # models want the same features of every entity
def _arguments(features: tuple[str, ...], length: int) -> str:
    """Returns the keys of features as arguments, without their common beginning of this length."""
    ends = [f":{_quoted(feature)}" for feature in features]
    return "".join(f"${length + len(end)}\r\n{_BEGINNING}{end}\r\n" for end in ends)


@lru_cache(1024)  # tenants and models are few, and every look-up names them
def _quoted(part: str) -> str:
    return quote(part, safe="")
