"""The number of cores that a process uses, in containers with cgroup v1 and v2."""

from pathlib import Path

import pytest

from models.cores import ControlGroup, control_groups, strictest, usable_cores


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


def test_the_strictest_of_the_groups_around_the_process_counts(tmp_path: Path) -> None:
    files = {"cpu.max": "400000 100000\n", "a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}
    own = tree(tmp_path, {**files, "own": "1:name=systemd:/\n0::/a/b\n"}) / "own"
    groups = control_groups(tmp_path, own)
    assert [group.quota[0].relative_to(tmp_path).as_posix() for group in groups] == [
        "a/b/cpu.max",
        "a/cpu.max",
        "cpu.max",
    ]
    found = strictest(groups)
    assert found is not None
    assert (found[0], found[1].cores) == (groups[1], 0.5)
    assert usable_cores(tmp_path, own, affinity=8) == 0.5


def test_a_group_that_the_process_cannot_see_is_left_out(tmp_path: Path) -> None:
    own = tree(tmp_path, {"cpu.max": "50000 100000\n", "own": "0::/docker/0123\n"}) / "own"
    assert len(control_groups(tmp_path, own)) == 1


@pytest.mark.parametrize(
    ("files", "used_ns"),
    [
        ({"cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"}, 1_500_000),
        ({"cpu.stat": "1500000\n"}, 1_500_000),  # version 1: cpuacct.usage
        ({}, None),
        ({"cpu.stat": ""}, None),
    ],
)
def test_the_use_of_a_group_is_read_in_either_version(
    tmp_path: Path, files: dict[str, str], used_ns: int | None
) -> None:
    assert ControlGroup([], tree(tmp_path, files) / "cpu.stat").used_ns() == used_ns


def test_quota_and_use_of_version_1_lie_in_two_hierarchies(tmp_path: Path) -> None:
    files = {
        "cpu/x/cpu.cfs_quota_us": "50000\n",
        "cpu/x/cpu.cfs_period_us": "100000\n",
        "cpuacct/x/cpuacct.usage": "42\n",
        "own": "2:cpuacct:/x\n1:cpu:/x\n0::/\n",
    }
    [group] = control_groups(tree(tmp_path, files), tmp_path / "own")
    limit = group.limit()
    assert limit is not None
    assert (limit.cores, group.used_ns()) == (0.5, 42)
