"""A separate virtual environment for the peers, created once and reused while its list of packages is the same."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("torch==2.13.0", "mosec", "nvidia-pytriton", "ray[serve]==2.60.0")
_SHOWN = {
    "torch": "torch",
    "mosec": "Mosec",
    "ray": "Ray",
    "nvidia-pytriton": "nvidia-pytriton (Triton 24.10)",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of the peers. `ensure` creates it."""

    folder: Path
    packages: tuple[str, ...] = PACKAGES
    alone: tuple[str, ...] = ()  # installed without their dependencies

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

    @property
    def triton_server(self) -> Path:
        return self.site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def triton_backends(self) -> Path:
        return self.folder / "triton-backends"

    @property
    def triton_libraries(self) -> str:
        # The python backend links libpython, which is in no loader path if Python was built from source.
        return f"{self.site_packages / 'nvidia_pytriton.libs'}:{Path(sys.base_prefix) / 'lib'}"

    @property
    def _receipt(self) -> Path:
        return self.folder / "headway-peers.json"

    def is_complete(self) -> bool:
        return self.python.exists() and self._receipt.exists() and self._receipt.read_text() == self._wanted

    @property
    def _wanted(self) -> str:
        return json.dumps(self.packages + self.alone)

    def ensure(self, say: Callable[[str], None]) -> None:
        if self.is_complete():
            say(f"peers: using the environment in {self.folder}")
            return
        say(f"peers: creating an environment in {self.folder} (about 2 GB, a few minutes, once)")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        venv.create(self.folder, with_pip=True, clear=False)
        # Installed together: separately, a later package could replace a dependency of an earlier one.
        say(f"peers: pip install {' '.join(self.packages + self.alone)}")
        install = [str(self.python), "-m", "pip", "install", "--progress-bar=off"]
        subprocess.run([*install, *self.packages], check=True)
        if self.alone:
            subprocess.run([*install, "--no-deps", *self.alone], check=True)
        self._gather_triton_backend()
        self._receipt.write_text(self._wanted)

    def _gather_triton_backend(self) -> None:
        """Copies the backend and its interpreters, which are separate in the wheel, to one folder, as Triton needs."""
        wheel = self.triton_server.parent.parent
        target = self.triton_backends / "python"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(wheel / "backends" / "python", target, ignore=shutil.ignore_patterns("__pycache__"))
        stubs = wheel / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copytree(stubs, target, dirs_exist_ok=True)

    def versions(self) -> dict[str, str]:
        """Returns the installed versions, read with the environment's own Python."""
        program = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
        installed = {package.partition("==")[0].partition("[")[0] for package in self.packages}
        asked = subprocess.run(
            [self.python, "-c", program % ([name for name in _SHOWN if name in installed],)],
            capture_output=True,
            text=True,
            check=True,
            env=clean(),
        )
        return {_SHOWN[name]: version for name, version in json.loads(asked.stdout).items()}


def clean() -> dict[str, str]:
    """Returns the process's environment without variables that affect a peer: another Ray's address, import paths,
    thread counts."""
    steering = ("RAY_", "PYTHON", "LD_", "OMP_", "MKL_", "MOSEC_", "VIRTUAL_ENV", "HEADWAY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
