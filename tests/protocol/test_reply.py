import json

import ml_dtypes
import numpy as np
import pytest

from serving.protocol.errors import BadOutput
from serving.protocol.reply import OutputFormat, ReplyFormat, ReplyWriter

WRITER = ReplyWriter("m", "1")


def plain(datatype: str = "FP32", binary: bool = True) -> ReplyFormat:
    return ReplyFormat([OutputFormat("y", datatype, binary)])


def test_a_kept_head_gives_the_same_answer_as_a_new_one() -> None:
    form, values = plain(), {"y": np.arange(4, dtype=np.float32).reshape(2, 2)}
    assert WRITER.write(form, values) == WRITER.write(form, values) == WRITER.write(plain(), values)
    assert len(form.heads) == 1


def test_the_id_is_put_in_and_the_lengths_follow() -> None:
    headers, body = WRITER.write(plain(), {"y": np.zeros((1, 2), np.float32)}, 'a"b')
    length = int(dict(headers.pairs)[b"inference-header-content-length"])
    assert json.loads(body[:length])["id"] == 'a"b'
    assert int(dict(headers.pairs)[b"content-length"]) == len(body) == length + 8


@pytest.mark.parametrize("id", ["", "i"])
def test_an_empty_output_is_an_ordinary_json_answer(id: str) -> None:
    headers, body = WRITER.write(plain(), {"y": np.zeros((1, 0), np.float32)}, id)
    assert b"inference-header-content-length" not in dict(headers.pairs)
    assert json.loads(body)["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_heads_are_kept_for_a_bounded_number_of_shapes() -> None:
    form = plain("UINT8")
    for size in range(1000):
        WRITER.write(form, {"y": np.zeros((1, size), np.uint8)})
    assert len(form.heads) <= 256


@pytest.mark.parametrize("binary", [True, False])
def test_an_output_of_another_type_than_declared_is_not_sent(binary: bool) -> None:
    with pytest.raises(BadOutput, match="returned float64 for output 'y', declared as FP32"):
        WRITER.write(plain(binary=binary), {"y": np.zeros((1, 2))})
    with pytest.raises(BadOutput, match="no output 'y'"):
        WRITER.write(plain(binary=binary), {})


def test_bf16_is_taken_as_its_type_or_as_its_bits() -> None:
    values = np.array([[1.0, 2.0]], dtype=ml_dtypes.bfloat16)
    assert WRITER.write(plain("BF16"), {"y": values}) == WRITER.write(plain("BF16"), {"y": values.view(np.uint16)})


def test_strided_outputs_are_sent_in_row_major_order() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert WRITER.write(plain(), {"y": values.T})[1].endswith(np.ascontiguousarray(values.T).tobytes())
