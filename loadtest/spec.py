"""The notation `name(1, 2, key=3)` of the command line and of scenario files. Pure functions.

It is used for arrivals (`bursts(peak=5)`), sizes (`uniform(1, 8)`) and pauses."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

_FORM = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


class BadSpec(ValueError):
    """An invalid value. The text names the field, the value and the expected form."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed `name(positional…, named…)`. Values are floats if they can be parsed as numbers, else text."""

    name: str
    positional: tuple[float | str, ...] = ()
    named: tuple[tuple[str, float | str], ...] = ()


def parse(text: str, field: str) -> Spec:
    """Parses the notation. Raises BadSpec. `field`: the origin of the text, for the error message."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise BadSpec(f"{field}: expected name(value, key=value), got {text!r}")
    positional: list[float | str] = []
    named: list[tuple[str, float | str]] = []
    for part in (match[2] or "").split(","):
        key, equals, value = part.partition("=")
        if equals:
            named.append((key.strip(), _value(value)))
        elif part.strip():
            if named:
                raise BadSpec(f"{field}: {part.strip()!r} follows a named value; name it too")
            positional.append(_value(part))
    return Spec(match[1], tuple(positional), tuple(named))


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def call(spec: Spec, known: Mapping[str, Callable[..., Any]], field: str, **given: object) -> Any:
    """Calls the function of the spec's name with the spec's values. Those of `given` that the function has as
    parameters are passed too.

    Raises BadSpec for unknown names and invalid values, including those that the function itself refuses."""
    if spec.name not in known:
        raise BadSpec(f"{field}: no such kind {spec.name!r}; there are {', '.join(sorted(known))}")
    function = known[spec.name]
    wanted = signature(function).parameters
    mine = {name: value for name, value in given.items() if name in wanted}
    try:
        signature(function).bind(*spec.positional, **dict(spec.named), **mine)
    except TypeError as error:
        raise BadSpec(f"{field}: {error}; it is {usage(spec.name, function, given)}") from None
    try:
        return function(*spec.positional, **dict(spec.named), **mine)
    except (ValueError, TypeError, OSError) as error:
        raise BadSpec(f"{field}: {error}") from None


def usage(name: str, function: Callable[..., Any], given: Sequence[str] | Mapping[str, object] = ()) -> str:
    """Returns the notation of a call with its defaults: `bursts(peak=5.0, duty=0.1)`."""
    words = [_word(parameter) for key, parameter in signature(function).parameters.items() if key not in given]
    return f"{name}({', '.join(words)})" if words else name


def _word(parameter: Parameter) -> str:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return f"{parameter.name}, …"
    return parameter.name if parameter.default is Parameter.empty else f"{parameter.name}={parameter.default:g}"
