"""Tests models of the registry in the settings, and what a replica loads of them: a real engine, without Ray."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from models.loading import ModelNotLoadable
from models.spec import ModelSpec
from serving.cluster.registered import (
    PATIENCE_S,
    Artifact,
    Unresolved,
    artifact_of,
    fetched,
    model_settings,
    resolved,
)
from serving.cluster.replica.engines import open_engine
from serving.config import Settings, SettingsError, load_settings
from serving.core.outcome import Completed
from serving.explain import values
from serving.operate.render.kuberay import serve_config
from serving.registry.artifacts import file_path
from serving.registry.changes import approval
from serving.registry.log import ModelLog, Split
from serving.store.files import open_files
from tests.registry.artifacts import FILES, artifact, pushed
from tests.registry.stories import author


class Registry:
    """A registry in a folder with two versions of a model, which multiply by 3 and by 4; the first is approved."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "registry"
        self.copies = folder / "copies"
        self._folder = folder
        self.versions = [
            pushed(open_files(str(self.place)), artifact(folder / scale, {**FILES, "scale.txt": scale}))
            for scale in ("3", "4")
        ]
        self.approve("1")

    def approve(self, version: str) -> None:
        self._append(approval(author("user:ben"), version))

    def route(self, split: Split) -> None:
        self._append(lambda records: author().record("routed", split=split))

    def _append(self, decide) -> None:  # type: ignore[no-untyped-def]
        asyncio.run(ModelLog(open_files(str(self.place)), "ranker").append(decide))

    def settings(self, factory: str = "registry:ranker", approvals: int = 1, **more: object) -> Settings:
        path = self._folder / "headway.yaml"
        model = {"name": "ranker", "factory": factory, **more}
        registry = {"place": str(self.place), "approvals": approvals}
        path.write_text(yaml.safe_dump({"registry": registry, "models": [model]}))
        return load_settings(path)

    def mistake(self, factory: str, approvals: int = 1, **more: object) -> str:
        with pytest.raises(SettingsError) as caught:
            resolved(self.settings(factory, approvals, **more))
        (mistake,) = caught.value.mistakes
        return mistake

    def wanted(self, factory: str = "registry:ranker") -> tuple[ModelSpec, Artifact]:
        settings = resolved(self.settings(factory))
        found = artifact_of(settings, "ranker")
        assert found is not None
        return settings.model_specs()[0], found

    def fetch(self, factory: str = "registry:ranker") -> ModelSpec:
        return asyncio.run(fetched(*self.wanted(factory), folder=self.copies))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_the_settings_get_the_model_from_its_version(registry: Registry) -> None:
    settings = registry.settings()
    assert not settings.models[0].is_resolved
    said: list[str] = []
    (model,) = resolved(settings, said.append).models
    assert said == ["ranker: v1 of the registry"]
    assert (model.name, model.version, model.inputs[0].shape) == ("ranker", "1", [-1, 2])
    assert model.labels == {"y": ["cat", "dog"]}
    assert model.limits.max_queue_requests == 100
    assert model.factory == f"registry:ranker@v1#{registry.versions[0].digest}"


def test_what_the_settings_say_takes_precedence_setting_by_setting(registry: Registry) -> None:
    settings = resolved(registry.settings(limits={"forward_timeout_s": 5}, replicas=2, latency_budget_ms=50))
    (model,) = settings.models
    assert (model.limits.forward_timeout_s, model.limits.max_queue_requests) == (5, 100)
    assert (model.replicas, model.latency_budget_ms) == (2, 50)
    told = {value.key: value.source for value in values(settings)}
    assert told["models[0].inputs[0].name"] == "registry"
    assert told["models[0].replicas"].endswith("headway.yaml:7")
    assert told["models[0].channels_last"] == "default"


def test_the_version_that_serves_is_the_released_one(registry: Registry) -> None:
    registry.approve("2")
    assert resolved(registry.settings()).models[0].version == "2"
    registry.route(Split("1", "2", 500))
    assert resolved(registry.settings()).models[0].version == "1"
    assert resolved(registry.settings("registry:ranker@v2")).models[0].version == "2"


def test_versions_side_by_side_are_listed_by_their_numbers_alone(registry: Registry) -> None:
    registry.approve("2")
    registry.settings()
    path = registry.place.parent / "headway.yaml"

    def listed(*factories: str) -> Settings:
        models = [{"name": "ranker", "factory": factory} for factory in factories]
        path.write_text(yaml.safe_dump({"registry": {"place": str(registry.place)}, "models": models}))
        return load_settings(path)

    both = resolved(listed("registry:ranker@v1", "registry:ranker@2"))
    assert [(name, model.version) for name, model in both.applications().items()] == [
        ("ranker", "1"),
        ("ranker@2", "2"),
    ]
    with pytest.raises(SettingsError, match=r"models\[0\].factory: with several versions of ranker, name the number"):
        listed("registry:ranker", "registry:ranker@2")


def test_what_cannot_serve_is_told_with_its_line(registry: Registry) -> None:
    assert registry.mistake("registry:ranker@v2").endswith(
        "headway.yaml:2: models[0].factory: ranker@v2 has 0 of 1 approvals; "
        "`headway registry approve ranker@v2` adds one"
    )
    assert "there is no version '9'" in registry.mistake("registry:ranker@v9")
    assert "has no model 'rankr'" in registry.mistake("registry:rankr", name="rankr")
    assert "has 1 of 2 approvals" in registry.mistake("registry:ranker@v1", approvals=2)
    assert "limits.max_batch_rows: must be at least 1" in registry.mistake(
        "registry:ranker", limits={"max_batch_rows": 0}
    )


@pytest.mark.parametrize(
    ("factory", "more", "why"),
    [
        ("registry:", {}, "names no model of the registry"),
        ("registry:ranker", {"name": "other"}, "name: a model of the registry is served by its own name, 'ranker'"),
        ("registry:ranker", {"inputs": []}, "inputs: comes from the registry"),
        ("registry:ranker", {"options": {}}, "options: comes from the registry"),
        ("registry:ranker", {"version": "1"}, "version: comes from the registry"),
        ("registry:ranker@v1", {"version": "2"}, "version: comes from the registry"),
    ],
)
def test_the_settings_do_not_say_what_the_registry_says(
    registry: Registry, factory: str, more: dict[str, object], why: str
) -> None:
    assert f"models[0].{why}" in registry.mistake(factory, **more) or why in registry.mistake(factory, **more)


def test_a_registry_that_cannot_be_reached_is_told(registry: Registry, tmp_path: Path) -> None:
    settings = registry.settings()
    registry.place.rename(tmp_path / "moved")
    registry.place.write_text("a file in its place")
    with pytest.raises(SettingsError, match="the registry cannot be reached"):
        resolved(settings)


def test_a_manifest_names_the_version_and_not_its_content(registry: Registry) -> None:
    settings = resolved(registry.settings(replicas=2))
    of_front, of_model = (one["args"]["settings"] for one in yaml.safe_load(serve_config(settings))["applications"])
    assert of_front["models"] == [{"name": "ranker", "version": "1", "factory": "registry:ranker@v1"}]
    assert of_model["models"] == [{"name": "ranker", "factory": "registry:ranker@v1", "replicas": 2, "version": "1"}]
    again = resolved(Settings.model_validate(of_model))
    assert again.models == settings.models


def test_settings_without_a_model_of_the_registry_stay_as_they_are(tmp_path: Path) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 1]}
    model = {"name": "m", "factory": "a:b", "inputs": [tensor], "outputs": [{**tensor, "name": "y"}]}
    settings = Settings.model_validate({"models": [model]})
    assert resolved(settings) is settings
    assert artifact_of(settings, "m") is None
    with pytest.raises(Unresolved, match="is not from the registry"):
        asyncio.run(model_settings(settings, "m", "2"))


def test_another_version_has_all_else_as_it_is_set(registry: Registry) -> None:
    settings = resolved(registry.settings(replicas=2))
    with pytest.raises(Unresolved, match="has 0 of 1 approvals"):
        asyncio.run(model_settings(settings, "ranker", "2"))
    registry.approve("2")
    candidate = asyncio.run(model_settings(settings, "ranker", "2"))
    assert (candidate.name, candidate.version, candidate.replicas) == ("ranker", "2", 2)
    assert candidate.factory == f"registry:ranker@v2#{registry.versions[1].digest}"


def test_a_version_that_does_not_fit_beside_the_other_models_is_told_before_it_is_deployed(registry: Registry) -> None:
    tensor = {"datatype": "FP32", "shape": [-1, 1]}
    other = {"name": "ranker_2", "factory": "a:b", "inputs": [{"name": "x", **tensor}]}
    told = registry.settings().as_mapping()
    told["models"].append(other | {"outputs": [{"name": "y", **tensor}]})
    settings = resolved(Settings.model_validate(told))
    registry.approve("2")
    with pytest.raises(Unresolved, match=r"beside the other models: .*cannot tell ranker@2 and ranker_2 apart"):
        asyncio.run(model_settings(settings, "ranker", "2"))


@pytest.fixture
def _forgotten() -> None:
    """Lets the next test import its own `net`."""
    sys.modules.pop("net", None)


@pytest.mark.usefixtures("_forgotten")
def test_a_version_is_loaded_from_its_verified_files_and_computes(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = registry.fetch()
    assert (spec.factory, spec.version, spec.options) == ("net:Net", "1", {"path": "./scale.txt"})

    async def story() -> None:
        engine = await open_engine(spec)
        outcome = await engine.submit({"x": np.ones((1, 2), np.float32)}, rows=1)
        assert isinstance(outcome, Completed)
        assert outcome.value["y"].tolist() == [[3.0, 3.0]]  # type: ignore[index]
        await engine.drain(timeout_s=1)
        engine.close()

    asyncio.run(story())


def test_a_replica_loads_its_copy_while_the_registry_is_away_and_waits_without_one(
    registry: Registry, tmp_path: Path
) -> None:
    spec, found = registry.wanted()
    first = asyncio.run(fetched(spec, found, folder=registry.copies))
    away = tmp_path / "away"
    registry.place.rename(away)
    registry.place.write_text("a file in its place")
    assert asyncio.run(fetched(spec, found, folder=registry.copies)) == first
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            await asyncio.to_thread(registry.place.unlink)
            await asyncio.to_thread(away.rename, registry.place)

    asyncio.run(fetched(spec, found, folder=tmp_path / "other", pause=pause))
    assert waited == [1.0, 2.0, 4.0]


def test_a_replica_that_has_waited_for_long_fails_with_the_reason(registry: Registry, tmp_path: Path) -> None:
    spec, found = registry.wanted()
    registry.place.rename(tmp_path / "away")
    registry.place.write_text("a file in its place")
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    with pytest.raises(ModelNotLoadable, match=r"ranker@v1 cannot be loaded: the registry cannot be reached: "):
        asyncio.run(fetched(spec, found, folder=registry.copies, pause=pause))
    assert PATIENCE_S <= sum(waited) < PATIENCE_S + 30


def test_a_version_that_was_changed_in_the_registry_is_not_loaded(registry: Registry) -> None:
    wanted = registry.wanted()
    path = registry.place / file_path("ranker", registry.versions[0].digest, "net.py")
    path.write_text(path.read_text().replace("scale", "SCALE"))
    with pytest.raises(ModelNotLoadable, match=r"ranker@v1 is not loaded from .*: net\.py: does not match its hash"):
        asyncio.run(fetched(*wanted, folder=registry.copies))
    assert not list(registry.copies.rglob("net.py"))


def test_a_machine_without_room_for_copies_says_so(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "full").write_text("a file in its place")
    with pytest.raises(ModelNotLoadable, match="cannot be kept on this machine"):
        asyncio.run(fetched(*registry.wanted(), folder=tmp_path / "full"))
