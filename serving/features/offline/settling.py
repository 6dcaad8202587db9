"""Makes the names in a folder outlive a power cut. Knows nothing of the files."""

import os
from pathlib import Path


def settle(folder: Path) -> None:
    """Writes the names in the folder to the disk; until then, a power cut may take new ones away. Raises OSError."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
