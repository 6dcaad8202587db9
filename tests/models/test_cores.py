"""The number of cores that a process uses, in containers with cgroup v1 and v2."""

from pathlib import Path

import pytest

from models.cores import usable_cores


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8.0),
        ({"cpu.max": "max 100000\n"}, 8.0),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "1600000 100000\n"}, 8.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8.0),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_a_containers_quota_counts_and_not_the_hosts_cores(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    assert usable_cores(tree(tmp_path, files), affinity=8) == cores


def test_a_containers_quota_counts_in_either_generation_of_cgroups(tmp_path: Path) -> None:
    second, first, none = tmp_path / "v2", tmp_path / "v1", tmp_path / "none"
    second.mkdir()
    (second / "cpu.max").write_text("50000 100000\n")
    (first / "cpu").mkdir(parents=True)
    (first / "cpu" / "cpu.cfs_quota_us").write_text("25000\n")
    (first / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(second) == 0.5
    assert usable_cores(first) == 0.25
    assert usable_cores(none) >= 1


def test_no_quota_means_the_affinity(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "nothing")
