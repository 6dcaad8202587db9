"""Tests that text files of users are read correctly, whatever encoding and line ends their editor wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.cluster.front.pages import admin_token
from serving.config import SettingsError, load_settings
from serving.text_file import UnreadableText, read_lines, read_text

SETTINGS = """\
models:
  - name: doubler
    factory: shop.models:Doubler
    inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 3]}]
    labels: {y: classes.txt}
    description: Doppelt, auf Grün
"""
LABELS = "cat\nhérisson\ndog\n"
TOKEN = "a-secret-that-is-long-enough"


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


WRITTEN: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "on Windows": crlf,
    "on Windows with a byte order mark": lambda text: b"\xef\xbb\xbf" + crlf(text),
    "on an old Mac": lambda text: text.replace("\n", "\r").encode(),
    "without an end of the last line": lambda text: text.rstrip("\n").encode(),
    "with empty lines at the end": lambda text: (text + "\n \n\n").encode(),
    "as UTF-16": lambda text: text.encode("utf-16"),
    "as UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "as UTF-32": lambda text: text.encode("utf-32"),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN.keys())
def test_labels_and_settings_are_the_same_however_they_were_written(
    write: Callable[[str], bytes], tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_bytes(write(LABELS))
    (tmp_path / "my.yaml").write_bytes(write(SETTINGS))
    (spec,) = load_settings(tmp_path / "my.yaml").model_specs()
    assert spec.labels == {"y": ("cat", "hérisson", "dog")}
    assert spec.description == "Doppelt, auf Grün"


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_token_is_the_same_however_it_was_written(write: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(write(f"{TOKEN}\n"))
    assert admin_token(str(tmp_path / "token")) == TOKEN


def test_a_label_may_contain_characters_that_only_python_takes_for_line_ends(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("one\u2028half\n  \nthree\x0bhalf \n\tfour\x85half\n", encoding="utf-8")
    assert read_lines(tmp_path / "labels") == ["one\u2028half", "", "three\x0bhalf", "four\x85half"]


def test_a_mark_inside_of_a_text_stays(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("\ufeffa\ufeffb".encode())
    assert read_text(tmp_path / "text") == "a\ufeffb"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "one\nhérisson\n".encode("latin-1"),
            r"is not UTF-8 text \(invalid continuation byte at byte 5, line 2\); save",
        ),
        (b"one\x00two", r"is not UTF-8 text \(it holds null bytes, as UTF-16 does\); save it as UTF-8"),
        ("one\n".encode("utf-16-le"), r"is not UTF-8 text \(it holds null bytes"),
        (b"\xff\xfeo", r"is not UTF-16 text \(truncated data at byte 2, line 1\); save it as UTF-8"),
        (b"\x80\x04\x95weights", r"is not UTF-8 text \(invalid start byte at byte 0, line 1\)"),
    ],
)
def test_a_file_that_is_no_text_is_reported_with_the_place(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(UnreadableText, match=f"^{message}"):
        read_text(file)
    (tmp_path / "my.yaml").write_text(SETTINGS)
    with pytest.raises(
        SettingsError, match=rf"my.yaml:6: models\[0\].labels.y: the labels' file .*classes.txt {message}"
    ):
        load_settings(tmp_path / "my.yaml")
    with pytest.raises(ValueError, match=rf"server.admin_token_file: .*classes.txt {message}"):
        admin_token(str(file))
    with pytest.raises(SettingsError, match=rf"classes.txt: {message}"):
        load_settings(file)


@pytest.mark.parametrize(
    ("content", "message"), [("", "holds no label"), ("\n \n", "holds no label"), (None, "cannot be")]
)
def test_a_file_without_labels_is_a_mistake(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "classes.txt").write_text(content)
    (tmp_path / "my.yaml").write_text(SETTINGS)
    with pytest.raises(SettingsError, match=f"classes.txt {message}"):
        load_settings(tmp_path / "my.yaml")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_file_without_an_end_is_refused_and_not_read_on() -> None:
    with pytest.raises(UnreadableText, match="is larger than 16 MiB"):
        read_text(Path("/dev/zero"))
