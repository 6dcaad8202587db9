"""Folders that become versions, for tests: a small model of numpy with labels, and stores that fail where told."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from serving.registry.artifacts import hashed, push, survey
from serving.registry.changes import Author
from serving.registry.manifest import Manifest
from serving.registry.state import Version
from serving.store.files import FileStore
from tests.registry.stories import author

MODEL = {
    "factory": "net:Net",
    "options": {"path": "./scale.txt"},
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    "labels": {"y": "labels.txt"},
    "limits": {"max_queue_requests": 100},
}
FILES = {
    "net.py": """from pathlib import Path

from models.reference import NumpyModel

def Net(path, spec):
    scale = float(Path(path).read_text())
    return NumpyModel(spec, lambda x: (x * scale,))
""",
    "scale.txt": "3",
    "labels.txt": "cat\ndog\n",
    "words/more.txt": "more",
}


def artifact(folder: Path, files: Mapping[str, str | bytes] = FILES) -> Path:
    """Writes a folder that can be pushed, without model.yaml, and returns it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def manifest_of(folder: Path, **facts: object) -> Manifest:
    return Manifest(files=hashed(survey(folder)), **{"model": MODEL, **facts})  # type: ignore[arg-type]


def pushed(store: FileStore, folder: Path, model: str = "ranker", by: Author | None = None, **facts: object) -> Version:
    """Pushes a folder and returns its version."""
    return asyncio.run(push(store, model, manifest_of(folder, **facts), survey(folder), by or author()))
