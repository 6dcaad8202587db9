"""Text files as people write them: with a byte order mark or without, with the line ends of any system."""

import codecs
from pathlib import Path

MARKS = {  # the longer ones first: UTF-32's begins as UTF-16's does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

LARGEST_BYTES = 16 << 20


class UnreadableText(ValueError):
    """The file cannot be read as text. Says why, without its name."""


def read_text(path: Path) -> str:
    """The file's text, without a byte order mark and with `\\n` at the end of each line. Raises `UnreadableText`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)  # some files never end
    except OSError as error:
        raise UnreadableText(f"cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_BYTES:
        raise UnreadableText(f"is larger than {LARGEST_BYTES >> 20} MiB, which no text of this kind is")
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
    """The file's lines, without blanks around them, and without the empty ones at its end. Raises `UnreadableText`."""
    # Not `splitlines`, which also ends a line at characters that may stand inside of one.
    return [line.strip() for line in read_text(path).rstrip().split("\n")]
