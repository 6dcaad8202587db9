"""Where and from what a measurement was made: the machine and the commit, as short words for a report."""

import os
import platform
import subprocess
from pathlib import Path


def machine() -> dict[str, str]:
    return {
        "processor": processor(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }


def processor(cpuinfo: str) -> str:
    """The model's name from the text of /proc/cpuinfo, with the vector width the compute depends on most."""
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = named.get("flags", "").split()
    width = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{named.get('model name', platform.machine())} ({width})"


def commit(root: Path) -> str:
    """The short commit, marked where the working tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    # Earlier reports are left out: writing the last one must not mark this one as changed.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks")
    return (git("rev-parse", "--short", "HEAD") or "none") + (" with local changes" if changed else "")
