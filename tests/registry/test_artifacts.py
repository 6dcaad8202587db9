"""Tests the files of versions: a push that ends anywhere is no version, two pushes at once, and what gc removes."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from serving.registry.artifacts import (
    SETTLED_S,
    BadArtifact,
    file_path,
    find_waste,
    manifest_path,
    push,
    read_manifest,
    survey,
    waste,
)
from serving.registry.changes import AlreadyRegistered, archival
from serving.registry.log import ModelLog
from serving.registry.manifest import MOST_FILES, BadManifest, File, Manifest, parsed
from serving.registry.state import fold
from serving.store.files import open_files
from serving.store.log import RecordsUnreadable
from serving.store.objects import StoreUnreachable
from serving.testing.files import MemoryFiles
from tests.registry.artifacts import FILES, artifact, manifest_of, pushed
from tests.registry.stories import DIGESTS, author, state_of


def versions_in(store: MemoryFiles) -> list[str]:
    log = ModelLog(store, "ranker")
    asyncio.run(log.read_new())
    assert log.unreadable == ()
    return list(fold(log.records).versions)


def test_a_version_holds_every_file_by_its_hash(tmp_path: Path) -> None:
    store, folder = MemoryFiles(), artifact(tmp_path)
    version = pushed(store, folder, metrics={"auc": 0.9})
    manifest = asyncio.run(read_manifest(store, "ranker", version.digest))
    assert (version.number, manifest.metrics, manifest.digest) == ("1", {"auc": 0.9}, version.digest)
    assert sorted(manifest.files) == sorted(FILES)
    assert manifest.size == sum(map(len, FILES.values()))
    assert store.objects[file_path("ranker", version.digest, "words/more.txt")] == b"more"


def test_equal_content_is_one_version_and_any_change_is_another(tmp_path: Path) -> None:
    store, folder = MemoryFiles(), artifact(tmp_path)
    pushed(store, folder)
    with pytest.raises(AlreadyRegistered, match="v1 already"):
        pushed(store, folder)
    assert pushed(store, folder, metrics={"auc": 0.9}).number == "2"
    (folder / "labels.txt").write_text("cat\nhound\n")
    assert pushed(store, folder).number == "3"


@pytest.mark.parametrize("writes_then_fails", [False, True])
def test_a_push_that_ends_anywhere_is_no_version_and_the_next_one_makes_it(
    writes_then_fails: bool, tmp_path: Path
) -> None:
    folder = artifact(tmp_path)
    for number in range(100):
        store = MemoryFiles(fails_at=frozenset({number}), writes_then_fails=writes_then_fails)
        failed = False
        try:
            pushed(store, folder)
        except StoreUnreachable:
            failed = True
        asked, store.fails_at = store.calls, frozenset()
        written = any("/log/" in path for path in store.objects)
        assert versions_in(store) == (["1"] if written else [])
        if not failed:
            assert number == asked == 10  # of three listings, four files, a manifest, a record written and read
            return
        try:
            assert pushed(store, folder).number == "1"
        except AlreadyRegistered:
            assert written
        version = state_with(store)
        assert asyncio.run(read_manifest(store, "ranker", version)).files.keys() == FILES.keys()
    raise AssertionError("it never succeeds")


def state_with(store: MemoryFiles) -> str:
    log = ModelLog(store, "ranker")
    asyncio.run(log.read_new())
    return fold(log.records).versions["1"].digest


def test_pushes_at_once_into_a_folder_never_share_a_number(tmp_path: Path) -> None:
    place = str(tmp_path / "registry")

    def one(name: str) -> str:
        folder = artifact(tmp_path / name, {**FILES, "scale.txt": name[-1]})
        try:
            return pushed(open_files(place), folder, by=author(nonce=name)).number
        except AlreadyRegistered as error:
            return f"is {error.version.number}"

    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(one, [f"{kind}{value}" for kind in "ab" for value in range(4)]))
    made = [number for number in numbers if number.isdigit()]
    assert sorted(made) == ["1", "2", "3", "4"]
    for value in range(4):
        first, second = sorted((numbers[value], numbers[4 + value]), key=len)
        assert second == f"is {first}"


def test_a_file_that_changes_during_the_push_is_told_and_makes_no_version(tmp_path: Path) -> None:
    store, folder = MemoryFiles(), artifact(tmp_path)
    manifest, files = manifest_of(folder), survey(folder)

    def change(name: str) -> None:
        if name == "scale.txt":
            (folder / name).write_text("4444")

    with pytest.raises(BadArtifact, match=r"scale\.txt: was changed"):
        asyncio.run(push(store, "ranker", manifest, files, author(), change))
    assert versions_in(store) == []


def test_links_devices_and_odd_names_are_refused(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "artifact")
    for name, why in {"link": "is a link", "pipe": "is no file", "a b": "is no name", "é": "is no name"}.items():
        path = folder / name
        if name == "link":
            path.symlink_to("/etc/passwd")
        elif name == "pipe":
            os.mkfifo(path)
        else:
            path.write_text("")
        with pytest.raises(BadArtifact, match=f"{name}.*{why}"):
            survey(folder)
        path.unlink()
    (folder / "folder").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(BadArtifact, match="folder: is a link"):
        survey(folder)
    (folder / "folder").unlink()
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "config").write_text("url = https://me:secret@example.org/net.git")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "net.pyc").write_text("")
    assert sorted(survey(folder)) == sorted(FILES)
    with pytest.raises(BadArtifact, match="No such file"):
        survey(tmp_path / "missing")


GOOD = Manifest(model={"factory": "a:b"}, files={"a": File(1, "0" * 64)})


def test_a_manifest_that_was_changed_is_refused() -> None:
    content = GOOD.content()
    assert parsed(content, GOOD.digest) == GOOD
    with pytest.raises(BadManifest, match="somebody has changed it"):
        parsed(content.replace(b'"size":1', b'"size":2'), GOOD.digest)


BAD: dict[str, dict[str, object]] = {
    "is no name": {"files": {"../a": File(1, "0" * 64)}},
    "'/etc/passwd': is no name": {"files": {"/etc/passwd": File(1, "0" * 64)}},
    "has no size": {"files": {"a": File(-1, "0" * 64)}},
    "has no SHA-256": {"files": {"a": File(1, "../../x")}},
    "lies in a, which is a file": {"files": {"a": File(1, "0" * 64), "a/b": File(1, "0" * 64)}},
    "at most 2,000 make": {"files": {f"f{number}": File(1, "0" * 64) for number in range(MOST_FILES + 1)}},
    "is longer than": {"files": {"/".join(["a" * 100] * 5): File(1, "0" * 64)}},
    "lacks a section": {"model": []},
}


@pytest.mark.parametrize("why", BAD)
def test_a_harmful_manifest_is_refused_although_its_hash_is_right(why: str) -> None:
    harmful = replace(GOOD, **BAD[why])  # type: ignore[arg-type]
    with pytest.raises(BadManifest, match=why):
        parsed(harmful.content(), harmful.digest)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format":2}', b"[" * 100_000])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    from hashlib import sha256

    with pytest.raises(BadManifest):
        parsed(content, sha256(content).hexdigest())


def test_a_manifest_that_is_missing_is_told(tmp_path: Path) -> None:
    store = MemoryFiles()
    with pytest.raises(BadArtifact, match="has no manifest"):
        asyncio.run(read_manifest(store, "ranker", "0" * 64))
    store.objects[manifest_path("ranker", "0" * 64)] = GOOD.content()
    with pytest.raises(BadArtifact, match="somebody has changed it"):
        asyncio.run(read_manifest(store, "ranker", "0" * 64))


def objects_of(*numbers: str, age_s: int = SETTLED_S) -> dict[str, int]:
    """Returns the ages of a manifest and a file of each version."""
    return {
        path: age_s
        for number in numbers
        for path in (manifest_path("ranker", DIGESTS[number]), file_path("ranker", DIGESTS[number], "net.bin"))
    }


def test_only_what_no_record_names_and_the_files_of_archived_versions_are_waste() -> None:
    state = state_of("a registered 1", "a registered 2", "a archived 2")
    found = waste("ranker", state, objects_of("1", "2", "3"))
    assert found.whole == (manifest_path("ranker", DIGESTS["3"]), file_path("ranker", DIGESTS["3"], "net.bin"))
    assert found.archived == (file_path("ranker", DIGESTS["2"], "net.bin"),)


def test_what_serves_or_did_last_is_never_waste_whatever_the_records_say() -> None:
    events = ["a registered 1", "a registered 2", "a registered 3", "a routed 1", "a routed 2", "a routed 2 3 500"]
    state = state_of(*events, "a archived 1", "a archived 2", "a archived 3")
    assert state.before() is None
    assert waste("ranker", state, objects_of("2", "3")).paths == ()


def test_what_is_younger_than_a_day_may_be_a_push_at_work() -> None:
    young = {file_path("ranker", DIGESTS["3"], "other.bin"): SETTLED_S - 1}
    assert waste("ranker", state_of(), objects_of("3") | young).paths == ()
    assert len(waste("ranker", state_of(), objects_of("3")).paths) == 2


def test_content_that_is_registered_again_after_it_was_archived_is_kept() -> None:
    state = state_of("a registered 1", "a archived 1")
    again = replace(state.versions["1"], number="2", archived=False)
    state = replace(state, versions={**state.versions, "2": again})
    assert waste("ranker", state, objects_of("1")).paths == ()


def test_the_same_content_is_a_new_version_after_it_was_archived(tmp_path: Path) -> None:
    store, folder = MemoryFiles(), artifact(tmp_path)
    pushed(store, folder)
    asyncio.run(ModelLog(store, "ranker").append(archival(author(), "v1")))
    assert pushed(store, folder).number == "2"


def test_nothing_is_waste_while_a_record_cannot_be_read(tmp_path: Path) -> None:
    store, folder = MemoryFiles(), artifact(tmp_path)
    store.age_s = SETTLED_S
    pushed(store, folder)
    assert asyncio.run(find_waste(store, "ranker", 0)).paths == ()
    store.objects["models/ranker/log/000000000001.json"] = b"{"
    with pytest.raises(RecordsUnreadable):
        asyncio.run(find_waste(store, "ranker", 0))
