"""Reads a folder that MLflow wrote, and writes one: their files only, without MLflow.

MLflow knows the tensors and the files of a model, and not how Headway serves it: that is in the flavour `headway` of
folders that were exported here, else in a `model.yaml` that a person writes. Flavours that need a pickle are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.config_artifact import FILE, model_in
from serving.config_source import read_source
from serving.operate.registry import actions
from serving.operate.registry.actions import Made
from serving.registry.artifacts import BadArtifact
from serving.registry.manifest import FACTS, SECTIONS, Manifest
from serving.registry.state import Version

MLMODEL = "MLmodel"
FLAVOUR = "headway"
DATA = "model"  # the folder of the files in what is exported
_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}
_TENSORS = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "BYTES",
    "object": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# Flavours whose files are pickles, unless they say in which other form they are.
_PICKLED = {"sklearn": "skops", "pytorch": "pt2", "statsmodels": "", "pmdarima": "", "spacy": "", "fastai": ""}


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of a model, as the settings write them."""

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def imported(folder: Path, facts: Mapping[str, Any], settings: Path | None) -> Made:
    """Returns what a folder of MLflow's holds, ready to be pushed. settings: a `model.yaml` for it.

    Raises BadArtifact, UnsafeFile and SettingsError."""
    if not (folder / MLMODEL).is_file():
        raise BadArtifact(f"{folder}: holds no file {MLMODEL}, so it is no model of MLflow")
    told = read_source(folder / MLMODEL).data
    flavours = told.get("flavors") if isinstance(told, Mapping) else None
    if not isinstance(flavours, Mapping):
        raise BadArtifact(f"{folder / MLMODEL}: names no flavors")
    own = flavours.get(FLAVOUR)
    if isinstance(own, Mapping) and settings is None:
        kept = own.get("manifest")
        kept = kept if isinstance(kept, Mapping) else {}
        before = {key: kept[key] for key in (*FACTS, *SECTIONS) if key in kept and key not in ("model", "files")}
        return actions.prepared(folder / DATA, before | {key: fact for key, fact in facts.items() if fact})
    if reason := pickled(flavours):
        raise BadArtifact(f"{folder / MLMODEL}: {reason}; a pickle can run any code when it is loaded")
    if settings is None:
        raise BadArtifact(
            f"{folder / MLMODEL}: does not say how Headway serves it; write a model.yaml with `factory:` and "
            "`options:`, and name it with --settings"
        )
    signature = signature_of(told)
    beside = {} if signature is None else {"inputs": signature.inputs, "outputs": signature.outputs}
    source = {key: str(told[key]) for key in ("run_id", "model_uuid", "model_id", "mlflow_version") if told.get(key)}
    model = model_in(folder, file=settings, beside=beside)
    return actions.prepared(folder, {**facts, "source": {"mlflow": source}}, model=model)


def pickled(flavours: Mapping[str, Any]) -> str | None:
    """Returns why the files of these flavours are pickles, None if they need not be."""
    for name, flavour in flavours.items():
        facts = flavour if isinstance(flavour, Mapping) else {}
        form = _PICKLED.get(name)
        if form is not None and not (form and facts.get("serialization_format") == form):
            return f"the flavour {name} is a pickle{f' unless it is saved as {form}' if form else ''}"
        if name == "python_function" and facts.get("python_model"):
            return "the flavour python_function holds a pickled Python object"
    return None


def signature_of(told: Mapping[str, Any]) -> Signature | None:
    """Returns the tensors that an MLmodel file declares, None if it declares none. Raises BadArtifact."""
    signature = told.get("signature")
    if not isinstance(signature, Mapping) or not signature.get("inputs") or not signature.get("outputs"):
        return None
    return Signature(_tensors(signature["inputs"], "input"), _tensors(signature["outputs"], "output"))


def _tensors(text: Any, kind: str) -> list[dict[str, Any]]:
    try:
        columns = json.loads(text)
        return [_tensor(column, f"{kind}{index or ''}") for index, column in enumerate(columns)]
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise BadArtifact(f"{MLMODEL}: the signature's {kind}s cannot be read: {error}") from None


def _tensor(column: Mapping[str, Any], name: str) -> dict[str, Any]:
    name = str(column.get("name") or name)
    if column.get("type") == "tensor":
        spec = column["tensor-spec"]
        if spec["dtype"] not in _TENSORS:
            raise ValueError(f"{name} has the type {spec['dtype']}, which no tensor has")
        return {"name": name, "datatype": _TENSORS[spec["dtype"]], "shape": [int(size) for size in spec["shape"]]}
    if column.get("type") not in _COLUMNS:
        raise ValueError(f"{name} has the type {column.get('type')}, which no tensor has")
    return {"name": name, "datatype": _COLUMNS[column["type"]], "shape": [-1, 1]}


def export(place: str, model: str, version: Version, folder: Path) -> Manifest:
    """Writes a version into a new folder that MLflow can log, load the facts of, and give back.

    Raises Refused, BadArtifact, UnsafeFile and StoreUnreachable."""
    manifest = actions.unpack(place, model, version, folder)
    files = folder.with_name(f".{folder.name}-files")
    folder.rename(files)
    folder.mkdir()
    files.rename(folder / DATA)
    # JSON is YAML.
    (folder / DATA / FILE).write_text(json.dumps(manifest.model, indent=2, ensure_ascii=False) + "\n")
    (folder / MLMODEL).write_text(json.dumps(_mlmodel(model, version, manifest), indent=2, ensure_ascii=False) + "\n")
    return manifest


def _mlmodel(model: str, version: Version, manifest: Manifest) -> dict[str, Any]:
    kept = json.loads(manifest.content())
    facts = {key: kept[key] for key in (*FACTS, *SECTIONS) if key not in ("model", "files")}
    signature = {kind: json.dumps([_column(one) for one in manifest.model[kind]]) for kind in ("inputs", "outputs")}
    return {
        "artifact_path": "model",
        "flavors": {FLAVOUR: {"data": DATA, "model": model, "version": version.number, "manifest": facts}},
        "model_uuid": version.digest[:32],
        "signature": signature,
        "utc_time_created": version.at.replace("T", " ").removesuffix("Z"),
    }


def _column(tensor: Mapping[str, Any]) -> dict[str, Any]:
    names = {datatype: name for name, datatype in _TENSORS.items() if name != "object"}
    spec = {"dtype": names.get(tensor["datatype"], "float32"), "shape": tensor["shape"]}
    return {"name": tensor["name"], "type": "tensor", "tensor-spec": spec}
