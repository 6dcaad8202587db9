"""Tests when what is pushed is kept for the history of features, and what the start says if it is not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.cluster import feature_history
from serving.cluster.feature_history import begin_draining, history_place, open_spool, pushes_folder
from serving.config import Settings, load_settings
from serving.features.offline import layout
from serving.features.offline.spool import Spool
from serving.features.rows import Row
from serving.operate.launch import Cluster
from tests.cluster.conftest import NOOP, settings_file
from tests.patience import eventually

VIEWS = """\
features:
  entities: {user: {key: user_id}}
  views:
    stats: {entity: user, features: {age: {type: INT64}}}
"""


def declared(folder: Path, views: str = VIEWS, **server: Any) -> Settings:
    path = settings_file(folder, NOOP, **{"state": str(folder / "state"), **server})
    path.write_text(path.read_text() + views)
    return load_settings(path)


def warnings(settings: Settings) -> list[str]:
    said: list[str] = []
    Cluster(settings, Path("my.yaml"), said.append)._warn_of_no_history()
    return said


def test_pushes_are_kept_in_the_folder_of_the_offline_store(tmp_path: Path) -> None:
    settings = declared(tmp_path)
    spool = open_spool(settings)
    assert spool is not None
    assert spool.root == pushes_folder(settings) == tmp_path / "state" / "features"
    assert warnings(settings) == []
    assert not spool.folder.exists()  # before something is pushed


def test_without_views_nothing_is_kept_or_said(tmp_path: Path) -> None:
    settings = declared(tmp_path, "")
    assert open_spool(settings) is None
    assert warnings(settings) == []


def test_with_a_state_in_a_bucket_pushes_are_online_only_and_the_start_says_so(tmp_path: Path) -> None:
    settings = declared(tmp_path, state="s3://bucket/state")
    assert open_spool(settings) is None
    assert warnings(settings) == [
        "WARNING: features: server.state is s3://bucket/state; "
        "set features.folder to a folder that outlives the server; "
        "what is pushed is kept online only, and is in no training set"
    ]


def test_with_a_folder_of_its_own_pushes_go_to_the_state_in_a_bucket_or_to_the_place_that_is_named(
    tmp_path: Path,
) -> None:
    settings = declared(tmp_path, VIEWS + "  folder: own\n", state="s3://bucket/state")
    assert pushes_folder(settings) == tmp_path / "own"
    assert history_place(settings) == "s3://bucket/state/features"
    assert warnings(settings) == []
    settings = declared(tmp_path, VIEWS + "  history: s3://bucket/history\n")
    assert pushes_folder(settings) == tmp_path / "state" / "features"
    assert history_place(settings) == "s3://bucket/history"
    assert history_place(declared(tmp_path, VIEWS + "  history: there\n")) == str(tmp_path / "there")


def test_without_pyarrow_pushes_are_online_only_and_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_history, "find_spec", lambda name: None)
    settings = declared(tmp_path)
    assert open_spool(settings) is None
    assert warnings(settings) == [
        "WARNING: features: pyarrow is not installed: pip install 'headway[features]'; "
        "what is pushed is kept online only, and is in no training set"
    ]


def test_pushes_become_files_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_history, "DRAIN_EVERY_S", 0.01)
    settings = declared(tmp_path)
    spool = open_spool(settings)
    assert spool is not None
    assert settings.features is not None
    view = settings.features.declared().views["stats"]

    async def run(spool: Spool) -> None:
        draining = begin_draining(spool, str(spool.root))
        for count in range(3):
            await spool.append("acme", view, [Row(f"u{count}", 1_700_000_000_000, {"age": count})])
        await asyncio.to_thread(eventually, lambda: list(spool.folder.iterdir()), lambda left: not left, patience_s=60)
        draining.cancel()

    asyncio.run(run(spool))
    spool.end_file()
    assert layout.files(spool.root, "acme", "stats")


def test_the_task_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_history, "DRAIN_EVERY_S", 0.0)
    turns = 0

    def fails(spool: Spool, place: str) -> list[str]:
        nonlocal turns
        turns += 1
        raise RuntimeError("told to fail")

    monkeypatch.setattr(feature_history, "_drain", fails)
    spool = open_spool(declared(tmp_path))
    assert spool is not None

    async def run(spool: Spool) -> None:
        draining = begin_draining(spool, str(spool.root))
        while turns < 3:
            await asyncio.sleep(0)
        draining.cancel()

    asyncio.run(run(spool))
