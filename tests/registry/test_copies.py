"""Tests the copies of versions on a machine: every byte is verified, damage is repaired, and nothing is half there."""

import asyncio
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from serving.registry.artifacts import BadArtifact, file_path, manifest_path
from serving.registry.copies import UNFINISHED, Copies, Copy, copies_folder
from serving.registry.inspection import UnsafeFile
from serving.registry.manifest import File, Manifest
from serving.registry.state import Version
from serving.store.objects import StoreUnreachable
from serving.testing.files import MemoryFiles
from tests.registry.artifacts import FILES, MODEL, artifact, pushed


class Shelf:
    """A store with one version, and the copies of one machine."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = MemoryFiles()
        self.version: Version = pushed(self.store, artifact(tmp_path / "artifact"))
        self.root = tmp_path / "copies"
        self.copies = Copies(self.root)
        self.place = self.root / "ranker" / self.version.digest

    def find(self) -> Copy | None:
        return asyncio.run(self.copies.find("ranker", self.version.digest))

    def make(self) -> Copy:
        return asyncio.run(self.copies.make(self.store, "ranker", self.version.digest))

    def path_of(self, name: str) -> str:
        return file_path("ranker", self.version.digest, name)

    def left(self) -> list[str]:
        return [path.name for path in self.root.glob("*/*")]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_copy_holds_the_files_as_they_were_pushed_and_needs_the_store_once(shelf: Shelf) -> None:
    assert shelf.find() is None
    made = shelf.make()
    assert {name: (made.folder / name).read_text() for name in FILES} == FILES
    shelf.store.is_down = True
    assert shelf.find() == made
    assert shelf.left() == [shelf.version.digest]


def test_whichever_call_fails_there_is_a_whole_copy_or_none(shelf: Shelf) -> None:
    for number in range(20):
        shelf.store.calls, shelf.store.fails_at = 0, frozenset({number})
        try:
            shelf.make()
        except StoreUnreachable:
            assert shelf.find() is None
            assert shelf.left() == []
            continue
        assert number == shelf.store.calls == 1 + len(FILES)
        assert shelf.find() is not None
        return
    raise AssertionError("it never succeeds")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a changed file": lambda place: (place / "files" / "scale.txt").write_text("4"),
    "a longer file": lambda place: (place / "files" / "scale.txt").write_text("33"),
    "a missing file": lambda place: (place / "files" / "scale.txt").unlink(),
    "a file too many": lambda place: (place / "files" / "os.py").write_text(""),
    "a link in place of a file": lambda place: swap(place / "files" / "scale.txt"),
    "a changed manifest": lambda place: (place / "manifest.json").write_text("{}"),
    "no manifest": lambda place: (place / "manifest.json").unlink(),
}


def swap(path: Path) -> None:
    other = path.parents[3] / "other"
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_thrown_away_and_made_again(damage: str, shelf: Shelf) -> None:
    shelf.make()
    DAMAGES[damage](shelf.place)
    assert shelf.find() is None
    assert not shelf.place.exists()
    assert (shelf.make().folder / "scale.txt").read_text() == "3"


def test_what_python_compiles_beside_the_files_does_no_harm(shelf: Shelf) -> None:
    cache = shelf.make().folder / "__pycache__"
    cache.mkdir()
    (cache / "net.cpython-311.pyc").write_bytes(b"other code")
    assert shelf.find() is not None
    assert not cache.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"4", "does not match its hash"),
        (b"333", "larger file"),
        (b"", "does not match its hash"),
        (None, "is missing"),
    ],
)
def test_a_file_that_was_changed_in_the_store_is_refused(shelf: Shelf, content: bytes | None, why: str) -> None:
    if content is None:
        del shelf.store.objects[shelf.path_of("scale.txt")]
    else:
        shelf.store.objects[shelf.path_of("scale.txt")] = content
    with pytest.raises(BadArtifact, match=rf"scale\.txt: .*{why}"):
        shelf.make()
    assert shelf.left() == []


def test_a_pickle_is_refused_although_its_hash_is_right(shelf: Shelf) -> None:
    evil = pickle.dumps(shelf.version.digest.upper)
    manifest = Manifest(model=MODEL, files={"net.bin": File(len(evil), sha256(evil).hexdigest())})
    shelf.store.objects[manifest_path("ranker", manifest.digest)] = manifest.content()
    shelf.store.objects[file_path("ranker", manifest.digest, "net.bin")] = evil
    with pytest.raises(UnsafeFile, match=r"net\.bin: is a pickle"):
        asyncio.run(shelf.copies.make(shelf.store, "ranker", manifest.digest))


def test_of_two_that_copy_at_once_both_get_the_one_copy(shelf: Shelf) -> None:
    async def both() -> list[Copy]:
        return await asyncio.gather(
            *(Copies(shelf.root).make(shelf.store, "ranker", shelf.version.digest) for _ in range(3))
        )

    first, *others = asyncio.run(both())
    assert others == [first, first]
    assert shelf.left() == [shelf.version.digest]


def test_what_a_dead_process_has_left_is_removed(shelf: Shelf) -> None:
    left = shelf.root / "ranker" / f"{UNFINISHED}dead"
    (left / "files").mkdir(parents=True)
    (left / "files" / "net.bin").write_bytes(b"half")
    shelf.make()
    assert shelf.left() == [shelf.version.digest]


def test_copies_are_beside_other_caches(tmp_path: Path) -> None:
    assert copies_folder({"HEADWAY_CACHE": "/x"}) == Path("/x/registry")
    assert copies_folder({"XDG_CACHE_HOME": "/y"}) == Path("/y/headway/registry")
    assert copies_folder({}).parts[-2:] == ("headway", "registry")
