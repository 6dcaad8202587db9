"""Joining in small steps gives the same bytes as one join."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol.binary_codec import decode_response
from serving.protocol.errors import BadMessage
from serving.protocol.grpc_codec import GrpcReplyWriter
from serving.protocol.joining import AT_ONCE_ELEMENTS, COPIED_BYTES, joined
from serving.protocol.pb import decode
from serving.protocol.reply import HEADER_LENGTH, OutputFormat, ReplyFormat, ReplyWriter
from serving.protocol.tensors import read_tensor

SIZES = st.sampled_from([0, 1, 7, COPIED_BYTES - 1, COPIED_BYTES, COPIED_BYTES + 1, 2 * COPIED_BYTES + 3])


@given(st.lists(st.tuples(SIZES, st.sampled_from(["bytes", "<f2", "<f4", "?", "<i8", "<u2"])), max_size=5))
def test_parts_are_joined_as_in_one_call(kinds: list[tuple[int, str]]) -> None:
    parts: list = []
    for index, (size, kind) in enumerate(kinds):
        data = bytes([index]) * size if kind == "bytes" else (np.arange(size) % 2 + index % 2).astype(kind)
        parts.append(data if isinstance(data, bytes) else data.reshape(1, -1, 1))
    assert joined(iter(parts)) == b"".join(parts)


COUNT = AT_ONCE_ELEMENTS + 1
ANSWER = {
    "half": (np.arange(COUNT) % 2048).astype(np.float16).reshape(1, COUNT),
    "number": (np.arange(COUNT) / 4).astype(np.float32).reshape(1, COUNT),
    "text": np.array([b"%d" % n for n in range(COUNT)], dtype=object).reshape(1, COUNT),
}
DATATYPES = {"half": "FP16", "number": "FP32", "text": "BYTES"}


@pytest.mark.parametrize("id", ["", "7"])
@pytest.mark.parametrize("in_json", ["", "number text"])
@pytest.mark.parametrize("names", ["half number", "half number text"])
def test_a_very_large_answer_says_what_it_should(names: str, in_json: str, id: str) -> None:
    form = ReplyFormat([OutputFormat(name, DATATYPES[name], name not in in_json) for name in names.split()])
    headers, body = ReplyWriter("m", "1").write(form, ANSWER, id)
    told = dict(headers.pairs)
    assert int(told[b"content-length"]) == len(body)
    response = decode_response(body, int(told[HEADER_LENGTH]))
    assert response.id == id
    for output in response.outputs:
        assert np.array_equal(output.data, ANSWER[output.name])


def test_a_very_large_grpc_answer_says_what_it_should() -> None:
    form = ReplyFormat([OutputFormat(name, datatype, True) for name, datatype in DATATYPES.items()])
    response = decode("ModelInferResponse", GrpcReplyWriter("m", "1").write(form, ANSWER, "7"))
    assert response.id == "7"
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        read = read_tensor(raw, 0, len(raw), output.datatype, tuple(output.shape), "y")
        assert np.array_equal(read, ANSWER[output.name])


def test_texts_that_json_cannot_carry_are_told_of_however_far_behind() -> None:
    texts = np.full(COUNT, b"a", dtype=object)
    texts[-1] = b"\xff"
    form = ReplyFormat([OutputFormat("text", "BYTES", False)])
    with pytest.raises(BadMessage, match="output 'text': the bytes are not valid UTF-8"):
        ReplyWriter("m", "1").write(form, {"text": texts})
