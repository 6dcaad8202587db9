"""The small language of the command line and of scenario files: `name(1, 2, key=3)`. Pure.

One form for arrivals (`bursts(peak=5)`), sizes (`uniform(1, 8)`) and pauses, so that one thing has to be learned."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

_FORM = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


class BadSpec(ValueError):
    """The text names the field, what was found there and what was expected."""


@dataclass(frozen=True, slots=True)
class Spec:
    """`name(positional…, named…)`; values are numbers where they look like numbers, else text."""

    name: str
    positional: tuple[float | str, ...] = ()
    named: tuple[tuple[str, float | str], ...] = ()


def parse(text: str, field: str) -> Spec:
    """Raises BadSpec. `field` says where the text came from, for whoever has to mend it."""
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
                raise BadSpec(f"{field}: {part.strip()!r} stands behind a named value; name it too")
            positional.append(_value(part))
    return Spec(match[1], tuple(positional), tuple(named))


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def call(spec: Spec, known: Mapping[str, Callable[..., Any]], field: str, **given: object) -> Any:
    """The function of that name with the values of the spec. `given` is passed to those that ask for it by name.

    Raises BadSpec for unknown names and values that do not fit, also where the function itself refuses them."""
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
    """How it is written: `bursts(peak=5.0, duty=0.1)`."""
    words = [_word(parameter) for key, parameter in signature(function).parameters.items() if key not in given]
    return f"{name}({', '.join(words)})" if words else name


def _word(parameter: Parameter) -> str:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return f"{parameter.name}, …"
    return parameter.name if parameter.default is Parameter.empty else f"{parameter.name}={parameter.default:g}"
