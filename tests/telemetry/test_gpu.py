"""Tests that readings hold the driver's values, that missing values are absent, and that the fake is like pynvml."""

import inspect
import logging
import threading
from typing import Any

import pynvml
import pytest

from serving.telemetry.gpu import GpuSampler, open_gpus, visible_devices
from serving.telemetry.snapshot import GpuReading
from serving.testing.nvml import ScriptedGpu, ScriptedNvml

SM, TENSOR, DRAM = 2, 5, 10
REFUSALS = frozenset(name for name in vars(ScriptedNvml) if name.startswith(("nvmlDeviceGet", "nvmlGpm"))) - {
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMemoryInfo",
}


def read(*gpus: ScriptedGpu, devices: tuple[str, ...] | None = None) -> list[GpuReading]:
    return [gpu.read() for gpu in open_gpus(ScriptedNvml(*gpus), devices)]


def test_a_reading_is_in_the_units_of_its_names() -> None:
    (reading,) = read(ScriptedGpu(busy=75, throttle_bits=4 + 1, ecc_errors=2))
    assert (reading.uuid, reading.busy_ratio) == ("GPU-1", 0.75)
    assert (reading.memory_used_bytes, reading.own_memory_bytes, reading.memory_total_bytes) == (
        3 << 30,
        1 << 30,
        8 << 30,
    )
    assert (reading.power_watts, reading.power_limit_watts, reading.energy_joules) == (70.0, 140.0, 4200.0)
    assert (reading.sm_clock_hertz, reading.memory_clock_hertz, reading.temperature_celsius) == (1.5e9, 3e9, 40.0)
    assert reading.throttled_by == ("power",)  # bit 1 (idle) is ignored
    assert (reading.ecc_corrected, reading.ecc_uncorrected, reading.mig) == (2, 0, False)


def test_what_the_driver_does_not_report_is_absent_and_not_zero() -> None:
    (reading,) = read(ScriptedGpu(silent=REFUSALS))
    reported = {"uuid": "GPU-1", "memory_used_bytes": 3 << 30, "memory_total_bytes": 8 << 30, "busy_ratio": None}
    assert reading == GpuReading(**reported)  # type: ignore[arg-type]


def test_activities_are_averages_since_the_last_reading_and_absent_before_hopper() -> None:
    gpu = ScriptedGpu(activity={SM: 80.0, TENSOR: 40.0})
    (opened,) = open_gpus(ScriptedNvml(gpu), None)
    gpu.activity[SM] = 90.0
    reading = opened.read()
    assert (reading.sm_active_ratio, reading.tensor_active_ratio, reading.dram_busy_ratio) == (0.9, 0.4, None)
    assert read(ScriptedGpu())[0].sm_active_ratio is None


def test_after_a_failed_sample_activities_need_two_new_samples() -> None:
    gpu = ScriptedGpu(activity={SM: 80.0})
    (opened,) = open_gpus(ScriptedNvml(gpu), None)
    gpu.silent = frozenset({"nvmlGpmSampleGet"})
    assert opened.read().sm_active_ratio is None
    gpu.silent = frozenset()
    assert opened.read().sm_active_ratio is None
    assert opened.read().sm_active_ratio == 0.8


def test_a_process_the_driver_does_not_know_has_no_memory_of_its_own() -> None:
    assert read(ScriptedGpu(processes={}))[0].own_memory_bytes is None
    assert read(ScriptedGpu(processes={1 << 30: 5}))[0].own_memory_bytes is None


def test_a_part_of_a_card_has_its_own_memory_and_activity_and_the_cards_power() -> None:
    card = ScriptedGpu(mig=1, activity={SM: 10.0}, milliwatts=300_000)
    part = ScriptedGpu(
        uuid="MIG-1", part_of=card, used=1, total=2, activity={SM: 60.0}, milliwatts=1,
        silent=frozenset({"nvmlDeviceGetUtilizationRates"}),
    )  # fmt: skip
    (reading,) = read(card, part, devices=("MIG-1",))
    assert (reading.memory_used_bytes, reading.memory_total_bytes, reading.busy_ratio) == (1, 2, None)
    assert (reading.power_watts, reading.mig, reading.sm_active_ratio) == (300.0, True, 0.6)


def test_only_gpus_that_the_process_may_use_are_read() -> None:
    cards = [ScriptedGpu(uuid=f"GPU-{number}") for number in range(3)]
    assert [reading.uuid for reading in read(*cards)] == ["GPU-0", "GPU-1", "GPU-2"]
    assert [reading.uuid for reading in read(*cards, devices=("2", "GPU-0"))] == ["GPU-2", "GPU-0"]
    assert visible_devices({}) is None
    assert visible_devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "1, GPU-7,-1,2"}) == ("1", "GPU-7")


def test_the_sampler_reads_in_a_thread_of_its_own_and_frees_everything() -> None:
    nvml = ScriptedNvml(ScriptedGpu(activity={SM: 80.0}))
    threads: list[str] = []
    twice = threading.Event()

    def looked(readings: Any) -> None:
        threads.append(threading.current_thread().name)
        if len(threads) == 2:
            twice.set()

    with GpuSampler(devices=None, interval_s=0.001, nvml=lambda: nvml, looked=looked) as sampler:
        assert twice.wait(10.0)
        assert [reading.uuid for reading in sampler.readings] == ["GPU-1"]
    assert set(threads) == {"gpu-sampler"}
    assert (nvml.opened, nvml.samples, sampler.readings) == (0, 0, ())


def test_without_a_driver_or_the_module_there_is_one_line_and_no_reading(caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    for nvml, why in (
        (lambda: ScriptedNvml(driver="Driver Not Loaded"), "Driver Not Loaded"),
        (missing, "No module named 'pynvml'"),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO), GpuSampler(devices=None, nvml=nvml) as sampler:
            pass
        assert sampler.readings == ()
        assert [record.getMessage() for record in caplog.records] == [f"no GPU readings: {why}"]


def test_a_gpu_that_is_lost_has_no_readings_from_then_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    gpu = ScriptedGpu()
    nvml = ScriptedNvml(gpu)

    def looked(readings: Any) -> None:
        gpu.silent = frozenset({"nvmlDeviceGetMemoryInfo"})

    sampler = GpuSampler(devices=None, interval_s=0.001, nvml=lambda: nvml, looked=looked)
    sampler.open()
    sampler._thread.join(10.0)
    assert (sampler.readings, nvml.opened) == ((), 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_fake_has_the_signatures_and_constants_of_the_real_module() -> None:
    for name, fake in vars(ScriptedNvml).items():
        if name.startswith("_"):
            continue
        real = getattr(pynvml, name)
        if inspect.isfunction(fake) and inspect.isfunction(real):
            expected = list(inspect.signature(real).parameters)
            assert list(inspect.signature(fake).parameters)[1:] == expected, name
        elif isinstance(fake, int):
            assert fake == real, name
        else:
            assert callable(real), name


def test_the_fake_returns_the_fields_that_the_real_structures_have() -> None:
    nvml, gpu = ScriptedNvml(ScriptedGpu()), ScriptedGpu()
    for fake, real in (
        (nvml.nvmlDeviceGetMemoryInfo(gpu), pynvml.c_nvmlMemory_t),
        (nvml.nvmlDeviceGetUtilizationRates(gpu), pynvml.c_nvmlUtilization_t),
        (nvml.nvmlDeviceGetComputeRunningProcesses(gpu)[0], pynvml.c_nvmlProcessInfo_v3_t),
        (nvml.nvmlGpmQueryDeviceSupport(gpu), pynvml.c_nvmlGpmSupport_t),
        (nvml.c_nvmlGpmMetricsGet_t(), pynvml.c_nvmlGpmMetricsGet_t),
        (nvml.c_nvmlGpmMetricsGet_t().metrics[0], pynvml.c_nvmlGpmMetric_t),
    ):
        assert set(vars(fake)) <= {name for name, *_ in real._fields_}, real


@pytest.mark.gpu
def test_a_real_driver_reports_its_memory_and_activity() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pynvml.nvmlInit()
    try:
        (gpu, *_) = open_gpus(pynvml, None)
        square = torch.randn(4096, 4096, device="cuda")
        for _ in range(200):
            square = (square @ square).clamp(-1, 1)
        torch.cuda.synchronize()
        reading = gpu.read()
        gpu.close()
    finally:
        pynvml.nvmlShutdown()
    assert 0 < square.numel() * 4 < reading.memory_used_bytes < reading.memory_total_bytes
    assert reading.power_watts is None or reading.power_watts > 0
    if torch.cuda.get_device_capability() >= (9, 0):
        assert reading.sm_active_ratio is not None
        assert reading.sm_active_ratio > 0
