"""Describes the machine and the commit of a measurement, for reports."""

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
    """Returns the processor's model from the text of /proc/cpuinfo, with its vector width."""
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = named.get("flags", "").split()
    width = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{named.get('model name', platform.machine())} ({width})"


def commit(root: Path) -> str:
    """Returns the short commit, marked if the working tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    # Reports are excluded, because writing one must not mark the next as changed.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks")
    return (git("rev-parse", "--short", "HEAD") or "none") + (" with local changes" if changed else "")
