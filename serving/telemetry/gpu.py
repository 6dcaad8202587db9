"""Reads the state of this process' GPUs from NVIDIA's driver (NVML, and GPM on Hopper and newer), once a second.

Values that the driver does not report are absent. If it reports nothing at all, one line in the log gives the reason.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from serving.telemetry.snapshot import GpuReading

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
# Reasons for reduced clocks. Idling and clocks set by the operator are left out, because they are no problem.
THROTTLE_REASONS = {
    "power": "nvmlClocksThrottleReasonSwPowerCap",
    "hardware": "nvmlClocksThrottleReasonHwSlowdown",
    "temperature": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "temperature_of_hardware": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "power_brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
    "sync_boost": "nvmlClocksThrottleReasonSyncBoost",
}
GPM_METRICS = {
    "sm_active_ratio": "NVML_GPM_METRIC_SM_UTIL",
    "tensor_active_ratio": "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "dram_busy_ratio": "NVML_GPM_METRIC_DRAM_BW_UTIL",
}


def visible_devices(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """Returns the GPUs in CUDA_VISIBLE_DEVICES, by index or UUID; None if it is not set, which means all GPUs.

    Like CUDA, stops at the first invalid entry. So an empty value or -1 means no GPU.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        names.append(name)
    return tuple(names)


class GpuSampler:
    """Samples the GPUs in a thread. Use it as a context manager, or call `open` and `close`.

    readings: the latest sample; empty before the first and after a failure.
    devices: the GPUs by index or UUID; None for all. nvml: imports the module `pynvml`.
    looked: called in the thread with each sample.
    """

    def __init__(
        self,
        *,
        devices: Sequence[str] | None,
        interval_s: float = INTERVAL_S,
        nvml: Callable[[], Any] = lambda: import_module("pynvml"),
        looked: Callable[[Sequence[GpuReading]], None] = lambda readings: None,
    ) -> None:
        self.readings: tuple[GpuReading, ...] = ()
        self._devices = devices
        self._interval_s = interval_s
        self._nvml = nvml
        self._looked = looked
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-sampler", daemon=True)

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def __enter__(self) -> "GpuSampler":
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        try:
            nvml = self._nvml()
            nvml.nvmlInit()
        except Exception as error:  # not installed, no driver, or a container without access to it
            log.info("no GPU readings: %s", error or type(error).__name__)
            return
        gpus: list[Gpu] = []
        try:
            gpus += open_gpus(nvml, self._devices)
            while True:
                self.readings = tuple(gpu.read() for gpu in gpus)
                self._looked(self.readings)
                if self._closed.wait(self._interval_s):
                    return
        except Exception as error:
            log.warning("no GPU readings from now on: %s", error or type(error).__name__)
        finally:
            self.readings = ()
            for gpu in gpus:
                gpu.close()
            nvml.nvmlShutdown()


class Gpu:
    """A GPU, or a MIG part of one, that this process may use."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._is_part = bool(self._ask("nvmlDeviceIsMigDeviceHandle", handle))
        # Power, clocks and errors exist only for the whole card, even if this process uses a part.
        self._card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if self._is_part else handle
        self._part_id = nvml.nvmlDeviceGetGpuInstanceId(handle) if self._is_part else None
        self._uuid = str(nvml.nvmlDeviceGetUUID(handle))
        support = self._ask("nvmlGpmQueryDeviceSupport", self._card)
        gpm = support is not None and support.isSupportedDevice
        self._samples = [nvml.nvmlGpmSampleAlloc() for _ in range(2)] if gpm else []
        self._has_sample = bool(self._samples) and self._take_sample()

    def read(self) -> GpuReading:
        """Returns the present state; the GPM activities are averages since the previous call."""
        nvml, card = self._nvml, self._card
        memory = nvml.nvmlDeviceGetMemoryInfo(self._handle)
        busy = self._ask("nvmlDeviceGetUtilizationRates", self._handle)
        mig = self._ask("nvmlDeviceGetMigMode", card)
        return GpuReading(
            uuid=self._uuid,
            name=self._ask("nvmlDeviceGetName", self._handle),
            busy_ratio=None if busy is None else busy.gpu / 100,
            memory_used_bytes=memory.used,
            memory_total_bytes=memory.total,
            own_memory_bytes=self._own_memory(),
            power_watts=_scaled(self._ask("nvmlDeviceGetPowerUsage", card), 1e-3),
            power_limit_watts=_scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit", card), 1e-3),
            energy_joules=_scaled(self._ask("nvmlDeviceGetTotalEnergyConsumption", card), 1e-3),
            temperature_celsius=_scaled(
                self._ask("nvmlDeviceGetTemperature", card, nvml.NVML_TEMPERATURE_GPU),
                1.0,
            ),
            sm_clock_hertz=_scaled(self._ask("nvmlDeviceGetClockInfo", card, nvml.NVML_CLOCK_SM), 1e6),
            memory_clock_hertz=_scaled(self._ask("nvmlDeviceGetClockInfo", card, nvml.NVML_CLOCK_MEM), 1e6),
            throttled_by=self._throttled_by(),
            ecc_corrected=self._errors(nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._errors(nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            mig=None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
            **self._activities(),
        )

    def close(self) -> None:
        for sample in self._samples:
            self._nvml.nvmlGpmSampleFree(sample)

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Calls an NVML function; returns None if the driver or the GPU does not support it."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError):
            return None

    def _own_memory(self) -> int | None:
        """Returns the bytes used by this process; None if unknown, as in a container with its own process ids."""
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses", self._handle) or ():
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
        return None

    def _throttled_by(self) -> tuple[str, ...] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._card)
        if bits is None:
            return None
        return tuple(name for name, constant in THROTTLE_REASONS.items() if bits & getattr(self._nvml, constant))

    def _errors(self, kind: int) -> int | None:
        count = self._ask("nvmlDeviceGetTotalEccErrors", self._card, kind, self._nvml.NVML_VOLATILE_ECC)
        return None if count is None else int(count)

    def _take_sample(self) -> bool:
        if self._part_id is None:
            return self._ask("nvmlGpmSampleGet", self._card, self._samples[1]) is not None
        return self._ask("nvmlGpmMigSampleGet", self._card, self._part_id, self._samples[1]) is not None

    def _activities(self) -> dict[str, float]:
        """Returns the GPM activities (0 to 1) between the previous sample and a new one; empty before Hopper."""
        nvml = self._nvml
        if not self._samples:
            return {}
        self._samples.reverse()
        had_sample, self._has_sample = self._has_sample, self._take_sample()
        if not (had_sample and self._has_sample):
            return {}
        query = nvml.c_nvmlGpmMetricsGet_t()
        query.version = nvml.NVML_GPM_METRICS_GET_VERSION
        query.numMetrics = len(GPM_METRICS)
        query.sample1, query.sample2 = self._samples
        for metric, constant in zip(query.metrics, GPM_METRICS.values(), strict=False):
            metric.metricId = getattr(nvml, constant)
        if self._ask("nvmlGpmMetricsGet", query) is None:
            return {}
        results = zip(GPM_METRICS, query.metrics, strict=False)
        return {name: metric.value / 100 for name, metric in results if metric.nvmlReturn == nvml.NVML_SUCCESS}


def open_gpus(nvml: Any, devices: Sequence[str] | None) -> Iterator[Gpu]:
    """Yields the GPUs given by index or UUID, or all of them if `devices` is None. NVML must be initialized."""
    for name in map(str, range(nvml.nvmlDeviceGetCount())) if devices is None else devices:
        if name.isdecimal():
            yield Gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(int(name)))
        else:
            yield Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(name))


def read_once(nvml: Any, devices: Sequence[str] | None = None) -> list[GpuReading]:
    """Returns the present state of the GPUs, without GPM activities (which need two samples). NVML must be open."""
    readings = []
    for gpu in open_gpus(nvml, devices):
        readings.append(gpu.read())
        gpu.close()
    return readings


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
