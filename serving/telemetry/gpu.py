"""What NVIDIA's driver says of this process' GPUs, once a second, in a thread of its own (NVML; GPM from Hopper on).

Whatever the driver does not tell is absent. Where it tells nothing at all, one line in the log says why.
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
# Why the clocks are lower than they could be. That a GPU idles, or that somebody set its clocks, is no trouble.
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
    """The GPUs this process may use, by index or UUID; None: all there are. CUDA stops reading at the first that it
    does not know, which is how "no GPU" is written (as nothing, or -1)."""
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
    """`readings` are those of the last look, empty before the first. Use it as a context, or `open` and `close` it.

    nvml: finds the module `pynvml`.
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
        except Exception as error:  # not installed, no driver, or a container that was not given it
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
    """One GPU, or one part of one (MIG), that this process may use."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._is_part = bool(self._ask("nvmlDeviceIsMigDeviceHandle", handle))
        # Power, clocks and errors are the whole card's, whoever uses parts of it.
        self._card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if self._is_part else handle
        self._part_id = nvml.nvmlDeviceGetGpuInstanceId(handle) if self._is_part else None
        self._uuid = str(nvml.nvmlDeviceGetUUID(handle))
        support = self._ask("nvmlGpmQueryDeviceSupport", self._card)
        gpm = support is not None and support.isSupportedDevice
        self._samples = [nvml.nvmlGpmSampleAlloc() for _ in range(2)] if gpm else []
        self._has_sample = bool(self._samples) and self._take_sample()

    def read(self) -> GpuReading:
        """As of now; activities since the last time."""
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

    def _ask(self, question: str, *words: Any) -> Any:
        """None where this driver, or this GPU, cannot say."""
        try:
            return getattr(self._nvml, question)(*words)
        except (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError):
            return None

    def _own_memory(self) -> int | None:
        """None where the driver does not know our process: in containers it may see other numbers than we."""
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
        found = self._ask("nvmlDeviceGetTotalEccErrors", self._card, kind, self._nvml.NVML_VOLATILE_ECC)
        return None if found is None else int(found)

    def _take_sample(self) -> bool:
        if self._part_id is None:
            return self._ask("nvmlGpmSampleGet", self._card, self._samples[1]) is not None
        return self._ask("nvmlGpmMigSampleGet", self._card, self._part_id, self._samples[1]) is not None

    def _activities(self) -> dict[str, float]:
        """Between the last sample and one taken now. None on GPUs older than Hopper."""
        nvml = self._nvml
        if not self._samples:
            return {}
        self._samples.reverse()
        had_sample, self._has_sample = self._has_sample, self._take_sample()
        if not (had_sample and self._has_sample):
            return {}
        wanted = nvml.c_nvmlGpmMetricsGet_t()
        wanted.version = nvml.NVML_GPM_METRICS_GET_VERSION
        wanted.numMetrics = len(GPM_METRICS)
        wanted.sample1, wanted.sample2 = self._samples
        for metric, constant in zip(wanted.metrics, GPM_METRICS.values(), strict=False):
            metric.metricId = getattr(nvml, constant)
        if self._ask("nvmlGpmMetricsGet", wanted) is None:
            return {}
        found = zip(GPM_METRICS, wanted.metrics, strict=False)
        return {name: metric.value / 100 for name, metric in found if metric.nvmlReturn == nvml.NVML_SUCCESS}


def open_gpus(nvml: Any, devices: Sequence[str] | None) -> Iterator[Gpu]:
    """By index or UUID; None: all there are."""
    for name in map(str, range(nvml.nvmlDeviceGetCount())) if devices is None else devices:
        if name.isdecimal():
            yield Gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(int(name)))
        else:
            yield Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(name))


def read_once(nvml: Any, devices: Sequence[str] | None = None) -> list[GpuReading]:
    """As of now, without activities, which take two looks. NVML is open already."""
    readings = []
    for gpu in open_gpus(nvml, devices):
        readings.append(gpu.read())
        gpu.close()
    return readings


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
