"""Tests which files a version may hold: attacks by pickles, archives and headers, and what only looks like one."""

import contextlib
import io
import os
import pickle
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from serving.registry.inspection import MOST_HEADER_BYTES, UnsafeFile, inspect
from serving.registry.pickles import holds_only_tensors, is_pickle


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def archive(members: dict[str, bytes], *, compressed: bool = False) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return written.getvalue()


def link(name: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        member = zipfile.ZipInfo(name)
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    return written.getvalue()


def torch_file(value: object, *, zipped: bool = True) -> bytes:
    written = io.BytesIO()
    torch.save(value, written, _use_new_zipfile_serialization=zipped)
    return written.getvalue()


def numpy_file(write: Callable[..., None], value: object) -> bytes:
    written = io.BytesIO()
    write(written, value)
    return written.getvalue()


def exported(example: object = ((torch.ones(3, 2),), {})) -> bytes:
    """Returns an archive with what `torch.export.save` of torch 2.13 writes; exporting takes ten seconds."""
    return archive(
        {
            "m/archive_format": b"pt2",
            "m/models/model.json": b'{"graph_module": {}}',
            "m/data/weights/weight_0": np.ones(4, np.float32).tobytes(),
            "m/data/weights/model_weights_config.json": b'{"config": {}}',
            "m/data/sample_inputs/model.pt": torch_file(example),
        }
    )


def twice() -> bytes:
    return archive({"a": b"1", "b": b"2"}).replace(b"b", b"a")


def _save_several(file: io.BytesIO, value: object) -> None:
    np.savez(file, x=value)


OBJECTS = np.array([{}], dtype=object)
LONG = (10 << 30).to_bytes(8, "little")
REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    **{
        f"a pickle of protocol {protocol}": ("net.bin", lambda p=protocol: pickle.dumps(Evil(), p), "is a pickle")  # type: ignore[misc]
        for protocol in range(6)
    },
    **{
        f"a pickle of protocol {protocol} with garbage in place of its end": (
            "net.bin",
            lambda p=protocol: pickle.dumps(Evil(), p)[:-1] + b"\xff",  # type: ignore[misc]
            "is a pickle",
        )
        for protocol in range(6)
    },
    "a pickle of plain values": ("net.bin", lambda: pickle.dumps({"a": [1, 2]}), "is a pickle"),
    "a pickle by name": ("net.PKL", lambda: b"text", "is a pickle by its name"),
    "weights of torch": ("net.pt", lambda: torch_file({"w": torch.ones(2)}), r"data\.pkl: is a pickle inside"),
    "weights of an old torch": ("net.pt", lambda: torch_file({"w": torch.ones(2)}, zipped=False), "is a pickle"),
    "a pickle in an archive": ("net.pt2", lambda: archive({"a/b": pickle.dumps(Evil())}), r"net\.pt2/a/b: is a pickle"),
    "an archive in an archive": ("net.zip", lambda: archive({"a": archive({"b": b""})}), "archive inside of"),
    "example inputs that run code": ("net.pt2", lambda: exported(Evil()), "sample_inputs.*archive inside of"),
    "objects of NumPy": ("a.npy", lambda: numpy_file(np.save, OBJECTS), "NumPy array of objects"),
    "objects of NumPy in an archive": ("a.npz", lambda: numpy_file(_save_several, OBJECTS), "of objects"),
    "gzip": ("a.gz", lambda: b"\x1f\x8b\x08\x00", "packed with gzip"),
    "tar": ("a.tar", lambda: b"\0" * 257 + b"ustar" + b"\0" * 300, "tar archive"),
    "a path that leaves the archive": ("a.zip", lambda: archive({"../evil": b""}), "leaves its folder: '../evil'"),
    "an absolute path in an archive": ("a.zip", lambda: archive({"/etc/evil": b""}), "leaves its folder"),
    "a path of Windows in an archive": ("a.zip", lambda: archive({"..\\evil": b""}), "leaves its folder"),
    "a link in an archive": ("a.zip", lambda: link("a"), "with a link: 'a'"),
    "a bomb": ("a.zip", lambda: archive({"a": bytes(20 << 20)}, compressed=True), r"expands 'a' from .* to 20,971,520"),
    "a name twice": ("a.zip", twice, "holds 'a' twice"),
    "an archive that was cut": ("a.zip", lambda: archive({"a": b"1" * 99})[60:], "cannot be read|overlap"),
    "a header of 10 GB": ("a.safetensors", lambda: LONG + b"{}", r"header of 10,737,418,240 bytes in a file of 10"),
    "a header longer than the file": ("a.safetensors", lambda: (99).to_bytes(8, "little") + b"{}", "header of 99"),
    "an empty file of safetensors": ("a.safetensors", lambda: b"", "announces a header"),
    "a header that is not JSON": ("a.safetensors", lambda: (2).to_bytes(8, "little") + b"{?", "not JSON"),
    "a pickle named safetensors": ("a.safetensors", lambda: pickle.dumps(Evil()), "announces a header"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_run_code_or_hides_what_it_holds_is_refused_with_a_sentence(kind: str, tmp_path: Path) -> None:
    name, content, why = REFUSED[kind]
    path = tmp_path / "file"
    path.write_bytes(content())
    with pytest.raises(UnsafeFile, match=why) as caught:
        inspect(path, name)
    assert str(caught.value).startswith(name)
    assert os.listdir(tmp_path) == ["file"]


ALLOWED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "labels whose first letters are operations": ("labels.txt", lambda: b"cat\ndog\ncow\nhen\nbird\nRabbit\n"),
    "labels that begin with a person": ("labels.txt", lambda: b"Person\nRider\n"),
    "code": ("net.py", lambda: b"import os\n"),
    "JSON": ("config.json", lambda: b'{"a": [1]}'),
    "numbers": ("weights.bin", lambda: np.arange(1000, dtype=np.float32).tobytes()),
    "numbers that begin like a pickle": ("weights.bin", lambda: b"\x80\x02\xff\xff\xff"),
    "an array": ("a.npy", lambda: numpy_file(np.save, np.ones(3))),
    "arrays": ("a.npz", lambda: numpy_file(lambda f, v: np.savez_compressed(f, x=v), np.ones(3))),
    "an exported program": ("net.pt2", exported),
    "nothing": ("empty", lambda: b""),
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_other_files_are_taken(kind: str, tmp_path: Path) -> None:
    name, content = ALLOWED[kind]
    path = tmp_path / "file"
    path.write_bytes(content())
    inspect(path, name)


def test_weights_in_safetensors_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"w": torch.ones(2, 2)}, path)
    inspect(path, path.name)
    assert path.stat().st_size < MOST_HEADER_BYTES


def test_a_pickle_of_tensors_is_told_from_one_that_holds_more() -> None:
    def data_of(value: object) -> bytes:
        with zipfile.ZipFile(io.BytesIO(torch_file(value))) as file:
            return file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))

    tensors = data_of(((torch.ones(2),), {}))
    assert holds_only_tensors(tensors)
    assert not holds_only_tensors(tensors[:-1])
    assert not holds_only_tensors(data_of({"a": Evil()}))
    assert not holds_only_tensors(pickle.dumps(Evil(), 4))
    assert not holds_only_tensors(b"")


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"\x80\x04" + tail))
def test_whatever_the_bytes_are_the_question_has_an_answer(content: bytes) -> None:
    assert is_pickle(content) in (True, False)
    assert holds_only_tensors(content) in (True, False)


ARCHIVE = archive({"m/data": b"1" * 40, "m/other": b"2" * 40}, compressed=True)


@given(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255), st.integers(0, 20))
def test_a_damaged_archive_is_taken_or_refused_with_a_sentence(at: int, value: int, cut: int) -> None:
    content = ARCHIVE[:at] + bytes([value]) + ARCHIVE[at + 1 : len(ARCHIVE) - cut]
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with contextlib.suppress(UnsafeFile):
            inspect(Path(file.name), "net.zip")


def test_a_call_of_a_module_that_does_not_exist_is_no_pickle() -> None:
    assert is_pickle(b"cos\nsystem\n(S'id'\ntR.")
    assert not is_pickle(b"cno_such_module\nsystem\n(S'id'\ntR.")
    assert not is_pickle(b"\x80\x02")
