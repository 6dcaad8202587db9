"""Hostile settings files: YAML that grows, is recursive or invalid, wrong types, unknown keys, odd bytes."""

from collections.abc import Callable
from pathlib import Path

from serving.config import load_settings
from tests.hostile.files import HostileFile, written
from tests.hostile.inputs import MIB, seeded, words

KIND = "settings"
GOOD = """\
models:
  - name: numbers
    factory: models.reference:echo
    inputs: [{name: x, datatype: FP32, shape: [-1, 2]}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 2]}]
"""
CLEAR, LOADED, EITHER = words("clear"), words("loaded"), words("clear", "loaded")


def corpus(size: int) -> list[HostileFile]:
    cases = {**_yaml(), **_values(), **_bytes()}
    return [
        *(
            HostileFile(name, KIND, written("hostile.yaml", make), load_settings, right)
            for name, (make, right) in cases.items()
        ),
        HostileFile("a file that is not there", KIND, lambda folder: folder / "none.yaml", load_settings, CLEAR),
        HostileFile("a folder", KIND, lambda folder: folder, load_settings, CLEAR),
        HostileFile("labels that are not there", KIND, _with_labels("none.txt"), load_settings, CLEAR),
        HostileFile("labels of /dev/zero", KIND, _with_labels("/dev/zero"), load_settings, CLEAR),
        HostileFile("labels of a folder", KIND, _with_labels("."), load_settings, CLEAR),
    ]


Cases = dict[str, tuple[Callable[[], bytes], frozenset[str]]]


def _yaml() -> Cases:
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    option = GOOD + "    options: &o {self: *o}\n"
    merges = "m0: &m0 {a: 1}\n" + "".join(
        f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    texts = {
        "a billion laughs": (laughs + GOOD, CLEAR),
        "a billion laughs within options": (GOOD + "    options:\n" + _indented(laughs), EITHER),
        "a billion laughs by merging": (merges + GOOD, CLEAR),
        "aliases, 20,000 of one": (GOOD + "    options: {a: &a [1], b: [" + "*a, " * 20_000 + "*a]}\n", EITHER),
        "an alias to what it stands in": (option, CLEAR),
        "a model that holds itself": (GOOD.replace("- name", "- &m\n    name") + "    options: {m: *m}\n", CLEAR),
        "an alias to nothing": (GOOD + "    options: *nowhere\n", CLEAR),
        "lists nested 100,000 deep": (GOOD + "    options: {a: " + "[" * 100_000 + "}\n", CLEAR),
        "lists nested 500 deep": (GOOD + "    options: {a: " + "[" * 500 + "]" * 500 + "}\n", EITHER),
        "a tag that runs code": (GOOD + "    options: !!python/object/apply:os.system ['touch run']\n", CLEAR),
        "a tag of nowhere": (GOOD + "    options: !nowhere {}\n", CLEAR),
        "several documents": (GOOD + "---\n" + GOOD, CLEAR),
        "a key that is a list": (GOOD + "    options: {[1, 2]: 3}\n", EITHER),
        "a key that is a mapping": (GOOD + "    options: {{a: 1}: 3}\n", CLEAR),
        "a key that is null": (GOOD + "    options: {null: 3}\n", EITHER),
        "a key given twice": (GOOD + "    name: again\n", CLEAR),
        "tabs": (GOOD.replace("    ", "\t"), CLEAR),
        "a time that is none": (GOOD + "    options: {a: 2024-99-99}\n", EITHER),
        "a number in sixties": (GOOD + "    version: 1:30\n", EITHER),
        "binary that is none": (GOOD + "    options: {a: !!binary '@@'}\n", EITHER),
        "nothing": ("", CLEAR),
        "a comment": ("# nothing\n", CLEAR),
        "a text": ("models", CLEAR),
        "a list": ("[models]", CLEAR),
        "a number": ("7", CLEAR),
        "null for models": ("models: null\n", CLEAR),
        "no models": ("models: []\n", CLEAR),
        "300 models": ("models:\n" + "".join(GOOD[8:].replace("numbers", f"m{n}") for n in range(300)), EITHER),
        "a description of a MiB": (GOOD + f"    description: {'d' * MIB}\n", EITHER),
        "an unknown key of 100 KB": (f"{'k' * 100_000}: 1\n" + GOOD, CLEAR),
        "50,000 unknown keys": ("".join(f"k{n}: 1\n" for n in range(50_000)) + GOOD, CLEAR),
    }  # fmt: skip
    return {name: (text.encode, right) for name, (text, right) in texts.items()}


def _indented(text: str) -> str:
    return "".join(f"      {line}\n" for line in text.splitlines())


def _values() -> Cases:
    server = {
        "a port of text": "http_port: eight",
        "a port beyond 16 bits": "http_port: 99999",
        "a port of 400 digits": f"http_port: {'9' * 400}",
        "a negative port": "http_port: -1",
        "a port that is true": "http_port: true",
        "a port of NaN": "http_port: .nan",
        "an infinite price": "gpu_hour_price: .inf",
        "a share of NaN": "trace_share: .nan",
        "an unknown key": "colour: red",
        "a host that is a list": "host: [a]",
        "a host of nothing": 'host: ""',
        "a header with a line feed": 'tenant_header: "a\\nb"',
        "a server for everybody without a word about it": "host: 0.0.0.0",
        "an auth that is a list": "auth: [none]",
        "an auth of nobody": "auth: {keys: false}",
        "a state of text": 'state: "s3://"',
        "a state with a null byte": 'state: "a\\0b"',
        "an endpoint that is a file": "trace_endpoint: file:///etc/passwd",
    }
    model = {
        "a name with slashes": 'name: "../../numbers"',
        "a name with a line feed": 'name: "a\\nb"',
        "a name of control characters": 'name: "\\e[31m"',
        "a name of 100 KB": f"name: {'n' * 100_000}",
        "a name of nothing": 'name: ""',
        "a name that is a number": "name: 7",
        "a factory that is code": 'factory: "os; os.system(1)"',
        "a factory without an attribute": "factory: models.reference",
        "no inputs": "inputs: []",
        "an input of no type": "inputs: [{name: x, datatype: FP31, shape: [-1, 2]}]",
        "a shape of 10^30": f"inputs: [{{name: x, datatype: FP32, shape: [-1, 1{'0' * 30}]}}]",
        "a shape of text": "inputs: [{name: x, datatype: FP32, shape: all}]",
        "a shape of nothing": "inputs: [{name: x, datatype: FP32, shape: []}]",
        "a shape of 10,000 dimensions": f"inputs: [{{name: x, datatype: FP32, shape: [-1{', 2' * 10_000}]}}]",
        "two inputs of one name": f"inputs: [{', '.join(['{name: x, datatype: FP32, shape: [-1]}'] * 2)}]",
        "replicas by the million million": "replicas: 1000000000000000",
        "no replicas": "replicas: 0",
        "half a replica": "replicas: 0.5",
        "a negative budget": "latency_budget_ms: -1",
        "a budget of NaN": "latency_budget_ms: .nan",
        "CPUs of NaN": "resources: {cpus: .nan}",
        "infinitely many GPUs": "resources: {gpus: .inf}",
        "a bound of zero": "limits: {max_queue_requests: 0}",
        "an example that is no JSON": "example: '{'",
        "an example nested deeply": f"example: '{'[' * 100_000}'",
        "weights of NaN": "tenants: {gold: .nan}",
        "labels of an output that is not there": "labels: {z: [a, b]}",
    }
    cases: Cases = {name: (f"server:\n  {line}\n{GOOD}".encode, CLEAR) for name, line in server.items()}

    def replaced(line: str) -> bytes:
        key = line.partition(":")[0]
        kept = [old for old in GOOD.splitlines() if not old.strip(" -").startswith(f"{key}:")]
        text = "\n".join([*kept, f"    {line}", ""])
        return (text if key != "name" else text.replace("    factory", "  - factory", 1)).encode()

    limitless = (
        "replicas by the million million",
        "a shape of 10,000 dimensions",
        "a name of 100 KB",
        "a name that is a number",
    )
    return cases | {
        name: (lambda line=line: replaced(line), EITHER if name in limitless else CLEAR) for name, line in model.items()
    }


def _bytes() -> Cases:
    good = GOOD.encode()
    return {
        "a byte order mark": (lambda: b"\xef\xbb\xbf" + good, LOADED),
        "line ends of Windows": (lambda: good.replace(b"\n", b"\r\n"), LOADED),
        "UTF-16": (lambda: GOOD.encode("utf-16"), EITHER),
        "Latin letters beyond UTF-8": (lambda: good + b"    description: caf\xe9\n", CLEAR),
        "NUL": (lambda: good + b"    description: a\0b\n", CLEAR),
        "control characters": (lambda: good + b"    description: a\x1b[31m\n", CLEAR),
        "a lone surrogate, escaped": (lambda: good + b'    description: "\\ud800"\n', EITHER),
        "random bytes": (lambda: seeded("settings").randbytes(10_000), CLEAR),
        "64 MiB of one line": (lambda: b"#" * (64 * MIB) + b"\n" + good, EITHER),
        "a MiB of line feeds": (lambda: b"\n" * MIB + good, EITHER),
    }


def _with_labels(file: str) -> Callable[[Path], Path]:
    return written("hostile.yaml", lambda: f"{GOOD}    labels: {{y: {file}}}\n".encode())
