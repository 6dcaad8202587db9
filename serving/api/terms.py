"""The terms of a request: priority, timeout and the other parameters that the model's backend receives with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from serving.api.served import ServedModel
from serving.core.backend import SequencePlace
from serving.protocol.errors import BadMessage

_OURS = frozenset({"priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "binary_data_output"})
FEATURE_REASONS = "feature_reasons"
_MAX_PARAMETER = 2**64  # Triton's are UINT64


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Everything that a request asks of the backend besides its tensors.

    priority: 1 is the most urgent, 0 the default. timeout_ns: None if not given.
    place: the request's place in a sequence; only for models with state.
    more: further arguments of the backend's `submit`, which only some models take.
    """

    rows: int
    priority: int = 0
    timeout_ns: int | None = None
    place: SequencePlace | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Asked(TypedDict):
    """The fields of `Terms` as keyword arguments, for the constructors of its subclasses."""

    rows: int
    priority: int
    timeout_ns: int | None
    place: SequencePlace | None
    more: Mapping[str, Any]


def asked(model: ServedModel, parameters: Mapping[str, object], rows: int) -> Asked:
    """Returns the terms that a request's parameters state. Raises BadMessage."""
    return {
        "rows": rows,
        "priority": _whole_number(parameters, "priority"),
        "timeout_ns": _whole_number(parameters, "timeout") * 1000 or None,
        "place": _sequence_place(model, parameters),
        "more": _own_parameters(model, parameters) | _feature_reasons(model, parameters),
    }


def _sequence_place(model: ServedModel, parameters: Mapping[str, object]) -> SequencePlace | None:
    """Returns the request's place in a sequence, or None. Raises BadMessage.

    Models without state ignore these parameters."""
    if model.sequencer is None:
        return None
    id = parameters.get("sequence_id", 0)
    if type(id) not in (int, str):
        raise BadMessage("must be a number or a text", path="parameters.sequence_id")
    if not id:
        return None
    flags = [parameters.get(name, False) for name in ("sequence_start", "sequence_end")]
    for name, flag in zip(("sequence_start", "sequence_end"), flags, strict=True):
        if type(flag) is not bool:
            raise BadMessage("must be true or false", path=f"parameters.{name}")
    return SequencePlace(id, *flags)  # type: ignore[arg-type]


def _own_parameters(model: ServedModel, parameters: Mapping[str, object]) -> dict[str, Any]:
    """Returns the parameters without a meaning in the protocol, as the argument `parameters` of the backend's `submit`.

    Empty for a model that takes no parameters. Raises BadMessage."""
    if not model.takes_parameters:
        return {}
    ours = _OURS | {FEATURE_REASONS} if model.tells_features else _OURS
    own = {name: value for name, value in parameters.items() if name not in ours and not name.startswith("triton_")}
    for name, value in own.items():
        if not isinstance(value, bool | int | float | str):
            raise BadMessage("must be a number, a text, true or false", path=f"parameters.{name[:100]}")
    return {"parameters": own}


def _feature_reasons(model: ServedModel, parameters: Mapping[str, object]) -> dict[str, Any]:
    """Returns whether the answer is to say which features were not known, as an argument of the backend's `submit`.

    Empty for a model without features, which ignores it. Raises BadMessage."""
    if not model.tells_features or FEATURE_REASONS not in parameters:
        return {}
    told = parameters[FEATURE_REASONS]
    if not isinstance(told, bool):
        raise BadMessage("must be true or false", path=f"parameters.{FEATURE_REASONS}")
    return {FEATURE_REASONS: told}


def _whole_number(parameters: Mapping[str, object], name: str) -> int:
    """Returns a parameter that is a whole number, 0 if it is not given. Raises BadMessage."""
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < _MAX_PARAMETER:
        raise BadMessage("must be a whole number from 0 to 2^64 - 1", path=f"parameters.{name}")
    return value
