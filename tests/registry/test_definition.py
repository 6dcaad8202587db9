"""Tests which version serves under a name in the settings, and what the settings get of it."""

import asyncio
from pathlib import Path

import pytest

from serving.registry.artifacts import BadArtifact, file_path, push, survey
from serving.registry.changes import approval
from serving.registry.definition import Definition, NotServable, chosen, definition
from serving.registry.log import ModelLog
from serving.registry.reference import Reference, named, reference_in
from serving.testing.files import MemoryFiles
from serving.text_file import lines_of
from tests.registry.artifacts import MODEL, artifact, manifest_of, pushed
from tests.registry.stories import author, state_of

TWO = ("a registered 1", "a registered 2")


def found(store: MemoryFiles, reference: Reference, approvals: int = 0) -> Definition:
    return asyncio.run(definition(store, reference, approvals=approvals, lines_of=lines_of))


def test_a_reference_is_read_as_it_is_written() -> None:
    digest = "ab" * 32
    for text, reference in {
        "registry:ranker": Reference("ranker"),
        "registry:my.model-2@v4": Reference("my.model-2", "4"),
        f"registry:ranker@v4#{digest}": Reference("ranker", "4", digest),
    }.items():
        assert reference_in(text) == reference
        assert str(reference) == text
    assert reference_in("registry:ranker@4") == Reference("ranker", "4")
    assert reference_in("models.mlp:Mlp") is None
    for wrong in ("registry:", "registry:a@", "registry:a@v0", "registry:a@latest", "registry:a/b", "registry:a@v4#ab"):
        with pytest.raises(ValueError, match="names no model of the registry"):
            reference_in(wrong)
    assert named("ranker@v4") == ("ranker", "v4")
    assert named("ranker") == ("ranker", None)


REFUSED: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "has no model 'ranker'; `headway registry push DIR --model ranker`": (None, ()),
    "no version of ranker is released or approved; `headway registry approve ranker@v2`": (None, TWO),
    "there is no version '3'; there is v1, v2": ("3", TWO),
    "ranker@v1 is archived": ("1", (*TWO, "b approved 1", "a archived 1")),
    "ranker@v1 has 0 of 1 approvals": ("1", (*TWO, "b approved 2")),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_may_not_serve_is_told_with_what_to_do(why: str) -> None:
    number, events = REFUSED[why]
    with pytest.raises(NotServable, match=why.replace("(", r"\(")):
        chosen(state_of(*events), Reference("ranker", number), 1)


def test_a_released_version_serves_also_if_more_approvals_are_asked_for_now() -> None:
    state = state_of(*TWO, "b approved 1", "a routed 1")
    assert chosen(state, Reference("ranker", "1"), 2).number == "1"
    assert chosen(state, Reference("ranker"), 2).number == "1"


def test_the_settings_get_the_model_of_the_version_with_its_labels(tmp_path: Path) -> None:
    store = MemoryFiles()
    version = pushed(store, artifact(tmp_path))
    told = found(store, Reference("ranker"))
    assert told.reference == Reference("ranker", "1", version.digest)
    assert told.settings == {**MODEL, "labels": {"y": ["cat", "dog"]}}
    with pytest.raises(NotServable):
        found(store, Reference("ranker"), approvals=1)
    asyncio.run(ModelLog(store, "ranker").append(approval(author("user:ben"), "1")))
    assert found(store, Reference("ranker"), approvals=1) == told


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"cat\nhound\n", "does not match its hash"), (None, "is missing in the store")],
)
def test_labels_that_were_changed_are_refused(content: bytes | None, why: str, tmp_path: Path) -> None:
    store = MemoryFiles()
    version = pushed(store, artifact(tmp_path))
    path = file_path("ranker", version.digest, "labels.txt")
    del store.objects[path]
    if content is not None:
        store.objects[path] = content
    with pytest.raises(BadArtifact, match=rf"labels\.txt: {why}"):
        found(store, Reference("ranker"))


@pytest.mark.parametrize(
    ("labels", "content", "why"),
    [("other.txt", b"", "is no file of the version"), ("labels.txt", b"\xff\xfe\xff", "is not")],
)
def test_labels_that_are_none_are_refused(labels: str, content: bytes, why: str, tmp_path: Path) -> None:
    store = MemoryFiles()
    folder = artifact(tmp_path, {"labels.txt": content})
    manifest = manifest_of(folder, model={**MODEL, "labels": {"y": labels}})
    asyncio.run(push(store, "ranker", manifest, survey(folder), author()))
    with pytest.raises(BadArtifact, match=why):
        found(store, Reference("ranker"))
