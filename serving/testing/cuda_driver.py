"""A library in place of NVIDIA's driver, made from `cuda_driver.c` by the C compiler of the machine.

tests/api/cuda_stories.py holds it and the real driver to the same promises.
"""

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def build_driver(folder: Path) -> Path:
    """The library, in this folder. Raises FileNotFoundError without a compiler, CalledProcessError if it is refused."""
    library = folder / "libcuda.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, _SOURCE, "-lrt"], check=True)
    return library
