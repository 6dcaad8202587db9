"""`python -m serving.protocol.pb.generate` writes `descriptors.py` from the .proto files (needs grpcio-tools)."""

import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

PROTOCOL = Path(__file__).parents[1]
SOURCES = ("open_inference.proto", "health.proto")
TARGET = Path(__file__).with_name("descriptors.py")


def generated() -> str:
    """The source text of `descriptors.py`. Raises RuntimeError for what protoc does not take."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "set")
        if protoc.main(["protoc", f"-I{PROTOCOL}", f"--descriptor_set_out={out}", *SOURCES]):
            raise RuntimeError("protoc refused the files, see above")
        files = FileDescriptorSet.FromString(out.read_bytes()).file
    return "\n".join(
        [
            '"""Made by `python -m serving.protocol.pb.generate` from the .proto files. Do not edit."""',
            "",
            "# fmt: off",
            "FILES = (",
            *(line for file in files for line in (f"    # {file.name}", *_chunks(file.SerializeToString()))),
            ")",
            "",
        ]
    )


def _chunks(data: bytes) -> list[str]:
    """One bytes value as literals of at most a line each."""
    pieces = [data[start : start + 24] for start in range(0, len(data), 24)]
    lines = [f"    {piece!r}" for piece in pieces]
    return [*lines[:-1], f"{lines[-1]},"]


if __name__ == "__main__":
    TARGET.write_text(generated())
