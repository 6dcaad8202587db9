"""Judges the files of an artifact by their bytes: refuses what runs code when it is loaded, and what hides its content.

A file is judged when it is pushed, and again when it is loaded. Nothing is unpacked, loaded or imported. Python's own
source files are code that people have read and approved; they are no concern of this module.
"""

import json
import stat
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo, is_zipfile

from serving.registry.pickles import holds_only_tensors, is_pickle

HEAD_BYTES = 1 << 20  # of a file that are looked at
MOST_MEMBERS = 100_000
MOST_HEADER_BYTES = 100_000_000  # of safetensors, as its own library has it
MOST_EXPANSION = 100  # of a compressed member
MOST_NESTED_BYTES = 64 << 20
PICKLE_NAMES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pyc")
PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x04\x22\x4d\x18": "lz4",
}
ADVICE = "save weights as safetensors, and other things as plain files"


class UnsafeFile(Exception):
    """The file is refused. The text names it and says why, in a sentence."""


def inspect(path: Path, name: str) -> None:
    """Looks at a file of an artifact. name: its path in the artifact. Raises UnsafeFile and OSError."""
    if name.lower().endswith(PICKLE_NAMES):
        raise UnsafeFile(f"{name}: is a pickle by its name, and a pickle can run any code when it is loaded; {ADVICE}")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if name.lower().endswith(".safetensors"):
            _inspect_safetensors(head, path.stat().st_size, name)
        elif is_zipfile(file):
            _inspect_archive(file, path.stat().st_size, name)
        else:
            _inspect_head(head, name)


def _inspect_head(head: bytes, name: str) -> None:
    for magic, kind in PACKED.items():
        if head.startswith(magic):
            raise UnsafeFile(f"{name}: is packed with {kind}, which hides what it holds; push the files themselves")
    if head[257:262] == b"ustar":
        raise UnsafeFile(f"{name}: is a tar archive, which hides what it holds; push the files themselves")
    if head.startswith(b"\x93NUMPY") and _holds_objects(head):
        raise UnsafeFile(f"{name}: is a NumPy array of objects, which is a pickle inside; store numbers or text")
    if is_pickle(head):
        raise UnsafeFile(f"{name}: is a pickle, which can run any code when it is loaded; {ADVICE}")


def _holds_objects(head: bytes) -> bool:
    """Returns whether the header of a NumPy array names a type of objects, or cannot be read."""
    wide = head[6:7] != b"\x01"
    start = 12 if wide else 10
    length = int.from_bytes(head[8:start], "little")
    header = head[start : start + length]
    return len(header) < length or b"O" in header.partition(b"fortran_order")[0]


def _inspect_safetensors(head: bytes, size: int, name: str) -> None:
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > min(size - 8, MOST_HEADER_BYTES):
        raise UnsafeFile(
            f"{name}: announces a header of {length:,} bytes in a file of {size:,}; it is cut off, or no safetensors"
        )
    if not head[8:9] == b"{":
        raise UnsafeFile(f"{name}: has no header of safetensors")
    if 8 + length <= len(head):
        try:
            json.loads(head[8 : 8 + length])
        except (ValueError, RecursionError):
            raise UnsafeFile(f"{name}: has a header that is not JSON") from None


def _inspect_archive(file: IO[bytes], size: int, name: str) -> None:
    try:
        with ZipFile(file) as archive:
            members = archive.infolist()
            _inspect_members(members, size, name)
            exported = any(one.filename.endswith("/archive_format") for one in members)
            for member in members:
                _inspect_member(archive, member, name, exported=exported)
    except UnsafeFile:
        raise
    except Exception as error:  # zipfile raises a dozen classes for damaged archives, IndexError among them
        raise UnsafeFile(f"{name}: is an archive that cannot be read: {type(error).__name__}") from None


def _inspect_members(members: list[ZipInfo], size: int, name: str) -> None:
    if len(members) > MOST_MEMBERS:
        raise UnsafeFile(f"{name}: is an archive of {len(members):,} files; at most {MOST_MEMBERS:,} are looked at")
    twice = [member for member, count in Counter(one.filename for one in members).items() if count > 1]
    if twice:
        raise UnsafeFile(f"{name}: is an archive that holds {twice[0]!r} twice")
    stored = sum(member.compress_size for member in members)
    if stored > size:
        raise UnsafeFile(f"{name}: is an archive whose files overlap: they have {stored:,} bytes, it has {size:,}")
    for member in members:
        parts = member.filename.rstrip("/").split("/")
        if member.filename.startswith("/") or "\\" in member.filename or ".." in parts or "\0" in member.filename:
            raise UnsafeFile(f"{name}: is an archive with a file that leaves its folder: {member.filename[:100]!r}")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafeFile(f"{name}: is an archive with a link: {member.filename[:100]!r}")
        packed = member.compress_type != ZIP_STORED
        if packed and member.compress_type != ZIP_DEFLATED:
            raise UnsafeFile(
                f"{name}: is an archive packed in a way that is not looked into; push the files themselves"
            )
        if packed and member.file_size > HEAD_BYTES + MOST_EXPANSION * member.compress_size:
            raise UnsafeFile(
                f"{name}: is an archive that expands {member.filename[:100]!r} from {member.compress_size:,} to "
                f"{member.file_size:,} bytes"
            )


def _inspect_member(archive: ZipFile, member: ZipInfo, name: str, *, exported: bool) -> None:
    inner = f"{name}/{member.filename[:100]}"
    if member.is_dir():
        return
    if member.filename.lower().endswith(PICKLE_NAMES):
        raise UnsafeFile(f"{inner}: is a pickle inside of an archive, and can run any code when loaded; {ADVICE}")
    with archive.open(member) as opened:
        head = opened.read(HEAD_BYTES)
        if not head.startswith(b"PK\x03\x04"):
            _inspect_head(head, inner)
            return
        # torch.export.save puts the example inputs into an archive of their own. torch.export.load unpickles them, and
        # without a limit if there is more in them than tensors.
        if exported and "/data/sample_inputs/" in member.filename and member.file_size <= MOST_NESTED_BYTES:
            whole = head + opened.read(MOST_NESTED_BYTES)
            if _holds_tensors(whole):
                return
    raise UnsafeFile(f"{inner}: is an archive inside of an archive, in which anything may hide, a pickle too; {ADVICE}")


def _holds_tensors(data: bytes) -> bool:
    """Returns whether an archive of torch holds tensors and nothing else."""
    with ZipFile(BytesIO(data)) as archive:
        members = archive.infolist()
        _inspect_members(members, len(data), "example inputs")
        for member in members:
            head = archive.read(member) if member.file_size <= MOST_NESTED_BYTES else b"\x80"
            if member.filename.endswith("/data.pkl"):
                if not holds_only_tensors(head):
                    return False
            elif is_pickle(head) or head.startswith(b"PK"):
                return False
    return True
