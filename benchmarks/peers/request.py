"""The request that all servers get (a row of 1024 times 0.5), and the check of its answer."""

import json
import math
import struct

WIDTH = 1024
ROW = struct.pack("<f", 0.5) * WIDTH
_TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "parameters": {"binary_data_size": len(ROW)}}
_OUTPUT = {"name": "y", "parameters": {"binary_data": True}}


def request(script: str) -> tuple[bytes, dict[str, str]]:
    """Returns (body, headers) of the request that load/<script>.lua sends."""
    headers = {"Content-Type": "application/octet-stream"}
    if script == "raw":
        return ROW, headers
    header = json.dumps({"inputs": [_TENSOR], "outputs": [_OUTPUT]}, separators=(",", ":")).encode()
    return header + ROW, {**headers, "Inference-Header-Content-Length": str(len(header))}


def is_right(answer: bytes, expected: list[float]) -> bool:
    """Returns whether the answer ends with the expected numbers, which are last in both the bare and the Open Inference
    form."""
    size = 4 * len(expected)
    if len(answer) < size:
        return False
    numbers = struct.unpack(f"<{len(expected)}f", answer[-size:])
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in zip(numbers, expected, strict=True))
