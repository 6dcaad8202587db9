"""Tests the doctor's findings on deficient machines, and how it reads a container's limits."""

import socket
from pathlib import Path

import pytest

from serving.cluster.machine import available_memory_bytes
from serving.config import ServerSettings
from serving.operate import doctor
from serving.operate.doctor import Verdict
from serving.telemetry.snapshot import GpuReading

MEMINFO = "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_containers_memory_limit_counts_if_it_is_less_than_what_is_free(tmp_path: Path) -> None:
    meminfo = tree(tmp_path, {"meminfo": MEMINFO}) / "meminfo"
    assert available_memory_bytes(tmp_path / "none", meminfo) == 8_000_000 * 1024
    limited = tree(tmp_path / "limited", {"memory.max": "1000000\n", "memory.current": "400000\n"})
    assert available_memory_bytes(limited, meminfo) == 600_000
    unlimited = tree(tmp_path / "unlimited", {"memory.max": "max\n", "memory.current": "400000\n"})
    assert available_memory_bytes(unlimited, meminfo) == 8_000_000 * 1024


def test_a_port_in_use_fails_and_says_how_to_find_its_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check = doctor.check_port(port, "the server")
    assert (check.verdict, f":{port}" in check.advice) == (Verdict.FAIL, True)
    assert doctor.check_port(port, "the server").verdict is Verdict.OK


def test_all_ports_of_a_server_are_looked_at_where_it_will_open_them() -> None:
    server = ServerSettings(host="127.0.0.1", http_port=18_080, grpc_port=18_081)
    looked = {check.name for check in doctor.check_ports(server, haproxy=True)}
    assert looked == {f"port {port}" for port in (18_080, 18_081, 18_580, 19_580)}
    without_grpc = {check.name for check in doctor.check_ports(ServerSettings(grpc_port=None), haproxy=True)}
    assert not without_grpc & {"port 8001", "port 9500"}
    assert [check.name for check in doctor.check_ports(server, haproxy=False)] == ["port 18080"]
    for host in ("192.0.2.77", "no-such-host.invalid"):
        elsewhere = doctor.check_port(18_080, "the server", host)
        assert elsewhere.verdict is Verdict.FAIL
        assert elsewhere.finding.startswith(f"server.host {host}: ")


def test_another_ray_than_the_tested_one_is_a_warning_and_none_a_failure() -> None:
    found = [doctor.check_ray(version).verdict for version in ("2.60.1", "2.61.0", None)]
    assert found == [Verdict.OK, Verdict.WARN, Verdict.FAIL]


def test_models_that_need_gpus_get_a_warning_if_there_are_none() -> None:
    cpu_torch: dict[str, object] = {"version": "2.13.0+cpu", "built_for": None, "devices": 0}
    blind_torch: dict[str, object] = {"version": "2.13.0", "built_for": "13.0", "devices": 0}
    assert [check.verdict for check in doctor.check_torch(cpu_torch, wanted_gpus=0)] == [Verdict.OK, Verdict.OK]
    assert [check.name for check in doctor.check_torch(blind_torch, wanted_gpus=1)] == ["torch", "cuda", "gpus"]
    assert [check.verdict for check in doctor.check_torch("it broke", wanted_gpus=0)] == [Verdict.FAIL]


def test_too_little_of_anything_comes_with_advice() -> None:
    checks = [
        doctor.check_python((3, 10)),
        doctor.check_haproxy(None, wanted=True),
        doctor.check_haproxy("/bin/haproxy", wanted=False),
        doctor.check_grpc("/bin/headway-haproxy", haproxy=False),
        doctor.check_grpc(None, haproxy=True),
        doctor.check_cores(2, wanted=3),
        doctor.check_memory(10**8, replicas=2),
        doctor.check_disk("/tmp", 10**8),
        doctor.check_shared_memory(Path("/no/such/folder")),
    ]
    assert all(check.verdict is not Verdict.OK and check.advice for check in checks)


def test_a_broken_torch_does_not_break_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH_PROBE", "raise ImportError('libcudart is missing')")
    assert doctor.probe_torch() == "importing torch failed: ImportError: libcudart is missing"


def test_a_gpu_that_is_failing_or_hot_is_warned_of_and_one_at_its_power_limit_is_not() -> None:
    def verdicts(**changes: object) -> list[Verdict]:
        reading = GpuReading(uuid="GPU-1", busy_ratio=None, memory_used_bytes=1, memory_total_bytes=2, **changes)  # type: ignore[arg-type]
        return [check.verdict for check in doctor.check_driver([reading])]

    assert verdicts(throttled_by=("power",), ecc_uncorrected=0) == [Verdict.OK]
    assert verdicts(throttled_by=("power", "temperature")) == [Verdict.WARN]
    assert verdicts(ecc_uncorrected=1) == [Verdict.WARN]
    assert [check.verdict for check in doctor.check_driver("Driver Not Loaded")] == [Verdict.OK]
