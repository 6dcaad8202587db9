"""Reads text files, with or without a byte order mark, and with the line ends of any system."""

import codecs
from pathlib import Path

MARKS = {  # the longer ones first: that of UTF-32 begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

LARGEST_BYTES = 16 << 20


class UnreadableText(ValueError):
    """The file cannot be read as text. The message gives the reason without the file's name."""


def read_text(path: Path) -> str:
    """Returns the file's text, without a byte order mark and with `\\n` as line end. Raises `UnreadableText`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)  # some files (/dev/zero) never end
    except OSError as error:
        raise UnreadableText(f"cannot be read: {error.strerror}") from error
    return text_of(content)


def text_of(content: bytes) -> str:
    """Returns the text in a file's content, as `read_text` does. Raises `UnreadableText`."""
    if len(content) > LARGEST_BYTES:
        raise UnreadableText(f"is larger than {LARGEST_BYTES >> 20} MiB, the most that is read of a text file")
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        expected = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        raise UnreadableText(
            f"is not {expected} text ({error.reason} at byte {error.start}, line {line}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise UnreadableText("is not UTF-8 text (it holds null bytes, as UTF-16 does); save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """Returns the file's lines without blanks around them, and no empty lines at the end. Raises `UnreadableText`."""
    return _lines(read_text(path))


def lines_of(content: bytes) -> list[str]:
    """Returns the lines in a file's content, as `read_lines` does. Raises `UnreadableText`."""
    return _lines(text_of(content))


def _lines(text: str) -> list[str]:
    # `splitlines` would also end a line at characters that a label may hold, such as U+2028.
    return [line.strip() for line in text.rstrip().split("\n")]
