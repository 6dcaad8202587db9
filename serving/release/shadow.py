"""The tests of a candidate before its first request: the model's example, and recorded requests sent to both versions.

Decides, in pure functions, what is sent and whether two answers agree. No client sees an answer, and none of these
requests is counted or recorded. Recordings hold shapes and no values (`serving/telemetry/recording.py`): the values are
the example's, or random ones of a fixed seed.
"""

import json
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from typing import Any

TOLERANCE = 1e-3  # relative: two versions that differ by less agree
MOST_ELEMENTS = 200_000  # of a request that is replayed; as JSON it has some megabytes
SHOWN = 5  # disagreements that are told
UNTESTED = 501  # the status of a model whose answers cannot be compared: it sends several, or keeps a state
Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]  # version, body -> status, answer
_TEXT = "headway "
_LARGEST = {"INT8": 127, "UINT8": 255, "INT16": 32_767, "UINT16": 65_535}


@dataclass(frozen=True, slots=True)
class Compared:
    """The counts of requests that both versions got. failed: answers other than 200 of the candidate alone;
    skipped: requests that the stable version did not answer either, which say nothing about the candidate."""

    agreed: int = 0
    differed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def compared(self) -> int:
        return self.agreed + self.differed

    def told(self) -> dict[str, Any]:
        return asdict(self) | {"notes": list(self.notes)}


async def smoke(ask: Ask, version: str, example: str | None) -> tuple[dict[str, Any], str]:
    """Sends the model's example to the candidate. Returns the outcome and a sentence; a model without an example
    passes, and the sentence says so."""
    if not example:
        return {"passed": True, "why": ""}, "the model has no example in its settings, so none was sent"
    status, answer = await ask(version, example.encode())
    if status == UNTESTED:
        return {"passed": True, "why": "", "status": status}, f"the model was not tested: {_error(answer)}"
    if status != 200:
        why = f"version {version} answered the model's example with {status}: {_error(answer)}"
        return {"passed": False, "why": why, "status": status}, why
    if why := _mistake(answer):
        return {"passed": False, "why": f"version {version}: {why}"}, f"version {version}: {why}"
    return {"passed": True, "why": "", "status": 200}, f"version {version} answered the model's example"


async def shadow(
    ask: Ask, stable: str, candidate: str, bodies: Iterable[bytes], *, agreement: float | None
) -> tuple[dict[str, Any], str]:
    """Sends every body to both versions, one at a time. Returns the outcome and a sentence.

    Fails if the candidate does not answer what the stable version answers, in more than one request of twenty and more
    than two; and, with `agreement`, if a smaller part of the answers agrees."""
    found = Compared()
    for body in bodies:
        one, other = await ask(stable, body), await ask(candidate, body)
        found = compared(found, one, other)
    why = _objection(found, agreement)
    outcome = {"passed": not why, "why": why, **found.told()}
    if not (found.compared or found.failed):
        return outcome, "no recorded request could be replayed, so no answers were compared"
    text = f"{found.agreed} of {found.compared} answers agree with those of version {stable}"
    return outcome, why or (text + (f"; {found.failed} failed" if found.failed else ""))


def _objection(found: Compared, agreement: float | None) -> str:
    both = found.compared + found.failed
    if found.failed > 2 and found.failed > both / 20:
        return f"{found.failed} of {both} replayed requests failed, which the stable version answers: {found.notes[0]}"
    if agreement is not None and found.compared and found.agreed < agreement * found.compared:
        part = found.agreed / found.compared
        return f"{part:.1%} of the answers agree, fewer than {agreement:.1%}; {found.notes[0]}"
    return ""


def compared(found: Compared, stable: tuple[int, bytes], candidate: tuple[int, bytes]) -> Compared:
    """Returns the counts with one more pair of (status, answer)."""
    if stable[0] != 200:
        return replace(found, skipped=found.skipped + 1)
    if candidate[0] != 200:
        notes = _noted(found.notes, f"{candidate[0]}: {_error(candidate[1])}")
        return replace(found, failed=found.failed + 1, notes=notes)
    if why := difference(stable[1], candidate[1]):
        return replace(found, differed=found.differed + 1, notes=_noted(found.notes, why))
    return replace(found, agreed=found.agreed + 1)


def difference(one: bytes, other: bytes) -> str:
    """Returns how two answers differ, "" if they agree: equal outputs and shapes, values within the tolerance."""
    ours, theirs = _outputs(one), _outputs(other)
    if ours.keys() != theirs.keys():
        return f"outputs {', '.join(sorted(theirs)) or 'none'} instead of {', '.join(sorted(ours)) or 'none'}"
    for name, output in ours.items():
        if output.get("shape") != theirs[name].get("shape"):
            return f"{name} has shape {theirs[name].get('shape')} instead of {output.get('shape')}"
        for index, (left, right) in enumerate(zip(flat(output["data"]), flat(theirs[name]["data"]), strict=False)):
            if not _close(left, right):
                return f"{name}[{index}] is {_shown(right)} instead of {_shown(left)}"
    return ""


def body_of(inputs: Mapping[str, Any], example: Mapping[str, Sequence[Any]], drawn: random.Random) -> bytes | None:
    """Returns an infer request with these recorded inputs; None for one that is too large, or not understood.

    inputs: by name, as recorded: datatype, shape, and the bytes of texts. example: values by name, repeated as often as
    needed. drawn: the source of values for inputs without an example."""
    tensors = []
    for name, told in inputs.items():
        shape, datatype = told.get("shape"), told.get("datatype")
        if not isinstance(shape, list) or not isinstance(datatype, str):
            return None
        size = math.prod(shape)
        if not 0 < size <= MOST_ELEMENTS or told.get("bytes", 0) > MOST_ELEMENTS:
            return None
        known = example.get(name)
        values = list(islice(cycle(known), size)) if known else _drawn(datatype, size, told, drawn)
        if values is None:
            return None
        tensors.append({"name": name, "datatype": datatype, "shape": shape, "data": values})
    return json.dumps({"inputs": tensors}).encode() if tensors else None


def values_of(example: str | None) -> dict[str, list[Any]]:
    """Returns the values of the example's inputs by name; none of what is not understood."""
    try:
        tensors = json.loads(example or "")["inputs"]
        return {str(tensor["name"]): list(flat(tensor["data"])) for tensor in tensors}
    except (ValueError, LookupError, TypeError):
        return {}


def flat(data: Any) -> list[Any]:
    """Returns nested lists as one."""
    if not isinstance(data, list):
        return [data]
    return [value for part in data for value in (flat(part) if isinstance(part, list) else (part,))]


def _drawn(datatype: str, size: int, told: Mapping[str, Any], drawn: random.Random) -> list[Any] | None:
    if datatype == "BYTES":
        each = max(1, int(told.get("bytes", 8 * size)) // size)
        return [(_TEXT * (each // len(_TEXT) + 1))[:each] for _ in range(size)]
    if datatype == "BOOL":
        return [drawn.random() < 0.5 for _ in range(size)]
    if datatype.startswith(("INT", "UINT")):
        return [drawn.randrange(min(100, _LARGEST.get(datatype, 100))) for _ in range(size)]
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return [round(drawn.uniform(0.0, 1.0), 3) for _ in range(size)]
    return None


def _outputs(answer: bytes) -> dict[str, dict[str, Any]]:
    try:
        return {str(output["name"]): {"data": [], **output} for output in json.loads(answer)["outputs"]}
    except (ValueError, LookupError, TypeError):
        return {}


def _mistake(answer: bytes) -> str:
    """Returns what is wrong with an answer by itself: no outputs, or numbers that are none."""
    outputs = _outputs(answer)
    if not outputs:
        return "the answer has no outputs"
    for name, output in outputs.items():
        for value in flat(output["data"]):
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                return f"output {name} holds a value that is no number"
    return ""


def _close(left: Any, right: Any) -> bool:
    if isinstance(left, float | int) and isinstance(right, float | int):
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE / 10)
    return bool(left == right)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]


def _noted(notes: tuple[str, ...], note: str) -> tuple[str, ...]:
    return notes if len(notes) >= SHOWN else (*notes, note)


def _error(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])[:200]
    except (ValueError, LookupError, TypeError):
        return answer[:200].decode("utf-8", "replace")
