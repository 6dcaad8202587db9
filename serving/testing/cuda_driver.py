"""Builds a fake of NVIDIA's driver library from `cuda_driver.c` with the machine's C compiler.

tests/api/cuda_stories.py runs the same tests on the fake and on the real driver.
"""

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def build_driver(folder: Path) -> Path:
    """Builds the library in this folder and returns its path.

    Raises FileNotFoundError without a compiler, CalledProcessError if compiling fails.
    """
    library = folder / "libcuda.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, _SOURCE, "-lrt"], check=True)
    return library
