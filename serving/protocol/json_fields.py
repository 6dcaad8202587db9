"""Large flat JSON objects, such as bodies of generate: the values of named fields taken apart from the rest.

Like `json_pieces.py`, this keeps one call into a decoder from holding the interpreter's lock for the whole message.
"""

from functools import cache
from typing import Any, NamedTuple

import msgspec

from serving.protocol.errors import BadMessage
from serving.protocol.json_pieces import places_in, strict, without


class Fields(NamedTuple):
    """`rest`: the message with `null` in place of each taken value. `values`: views of the message, by field name."""

    rest: bytes
    values: dict[str, memoryview]


def take_fields(message: bytes, names: tuple[str, ...]) -> Fields | None:
    """Takes the values of these fields out of a JSON object. NaN and Infinity may stand where numbers may.

    Returns None if a name has characters (quotes, backslashes, control characters) that the decoder cannot look for.
    Raises BadMessage if the message is not such an object, or has more than MAX_REST_BYTES besides these values. What
    is inside strings is not checked, neither in the rest nor in the values."""
    decoder = _decoder(names)
    if decoder is None:
        return None
    text = strict(message)
    try:
        raw = msgspec.structs.astuple(decoder.decode(text))
    except msgspec.ValidationError:
        raise BadMessage("not a JSON object") from None
    except msgspec.DecodeError as error:
        raise BadMessage(f"not valid JSON: {error}") from None
    except RecursionError:
        raise BadMessage("the JSON is nested too deeply") from None
    view = memoryview(message)
    places = {name: place for name, place in zip(names, places_in(text, raw), strict=True) if place}
    ascending = sorted(places.values(), key=lambda place: place.start)
    return Fields(
        without(message, ascending, "values of inputs"), {name: view[place] for name, place in places.items()}
    )


@cache
def _decoder(names: tuple[str, ...]) -> msgspec.json.Decoder[Any] | None:
    # A struct skips other fields; a dict would make an object for each of them.
    fields = [(f"f{index}", msgspec.Raw, msgspec.Raw()) for index in range(len(names))]
    try:
        struct = msgspec.defstruct("_Fields", fields, rename={f"f{index}": name for index, name in enumerate(names)})
    except ValueError:
        return None
    return msgspec.json.Decoder(struct)
