"""A fake of the module `pynvml` with scripted GPUs: the functions and constants that the project uses.

tests/telemetry/test_gpu.py compares its signatures, constants and fields with those of the real module.
"""

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """The base of NVML errors. The real class holds an error code; the fake holds a text."""


class NVMLLibraryMismatchError(Exception):
    """The driver is older than the module."""


@dataclass(kw_only=True)
class ScriptedGpu:
    """A GPU, or a MIG part of the GPU `part_of`.

    silent: names of the functions that raise "Not Supported" for it.
    activity: values of GPM metrics in percent, by metric; empty if the GPU does not support GPM.
    """

    uuid: str = "GPU-1"
    busy: int = 50
    used: int = 3 << 30
    total: int = 8 << 30
    milliwatts: int = 70_000
    celsius: int = 40
    megahertz: int = 1500
    throttle_bits: int = 0
    ecc_errors: int = 0
    mig: int = 0
    processes: dict[int, int | None] = field(default_factory=lambda: {os.getpid(): 1 << 30})
    activity: dict[int, float] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    part_of: "ScriptedGpu | None" = None


class ScriptedNvml:
    """The fake module.

    driver: the error with which `nvmlInit` fails; empty if there is a driver.
    opened: calls of nvmlInit without nvmlShutdown. samples: GPM samples allocated and not freed.
    """

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError
    NVML_SUCCESS = 0
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_GPM_METRICS_GET_VERSION = 1
    NVML_GPM_METRIC_SM_UTIL = 2
    NVML_GPM_METRIC_ANY_TENSOR_UTIL = 5
    NVML_GPM_METRIC_DRAM_BW_UTIL = 10
    nvmlClocksThrottleReasonSwPowerCap = 4
    nvmlClocksThrottleReasonHwSlowdown = 8
    nvmlClocksThrottleReasonSyncBoost = 16
    nvmlClocksThrottleReasonSwThermalSlowdown = 32
    nvmlClocksThrottleReasonHwThermalSlowdown = 64
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128

    def __init__(self, *gpus: ScriptedGpu, driver: str = "") -> None:
        self.gpus = gpus
        self.driver = driver
        self.opened = 0
        self.samples = 0

    def nvmlInit(self) -> None:
        if self.driver:
            raise NVMLError(self.driver)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len([gpu for gpu in self.gpus if gpu.part_of is None])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> ScriptedGpu:
        return [gpu for gpu in self.gpus if gpu.part_of is None][index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> ScriptedGpu:
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, handle: ScriptedGpu) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: ScriptedGpu) -> str:
        self._hear(handle, "nvmlDeviceGetName")
        return "Scripted"

    def nvmlDeviceGetMemoryInfo(self, handle: ScriptedGpu, version: Any = None) -> Any:
        self._hear(handle, "nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=handle.used, total=handle.total, free=handle.total - handle.used)

    def nvmlDeviceGetUtilizationRates(self, handle: ScriptedGpu) -> Any:
        self._hear(handle, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=handle.busy, memory=0)

    def nvmlDeviceGetPowerUsage(self, handle: ScriptedGpu) -> int:
        self._hear(handle, "nvmlDeviceGetPowerUsage")
        return handle.milliwatts

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: ScriptedGpu) -> int:
        self._hear(handle, "nvmlDeviceGetEnforcedPowerLimit")
        return 2 * handle.milliwatts

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ScriptedGpu) -> int:
        self._hear(handle, "nvmlDeviceGetTotalEnergyConsumption")
        return 60 * handle.milliwatts

    def nvmlDeviceGetTemperature(self, handle: ScriptedGpu, sensor: int) -> int:
        self._hear(handle, "nvmlDeviceGetTemperature")
        return handle.celsius

    def nvmlDeviceGetClockInfo(self, handle: ScriptedGpu, type: int) -> int:
        self._hear(handle, "nvmlDeviceGetClockInfo")
        return handle.megahertz * type

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: ScriptedGpu) -> int:
        self._hear(handle, "nvmlDeviceGetCurrentClocksThrottleReasons")
        return handle.throttle_bits

    def nvmlDeviceGetTotalEccErrors(self, handle: ScriptedGpu, errorType: int, counterType: int) -> int:
        self._hear(handle, "nvmlDeviceGetTotalEccErrors")
        return handle.ecc_errors if errorType == self.NVML_MEMORY_ERROR_TYPE_CORRECTED else 0

    def nvmlDeviceGetComputeRunningProcesses(self, handle: ScriptedGpu) -> list[Any]:
        self._hear(handle, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in handle.processes.items()]

    def nvmlDeviceGetMigMode(self, device: ScriptedGpu) -> list[int]:
        self._hear(device, "nvmlDeviceGetMigMode")
        return [device.mig, device.mig]

    def nvmlDeviceIsMigDeviceHandle(self, device: ScriptedGpu) -> bool:
        self._hear(device, "nvmlDeviceIsMigDeviceHandle")
        return device.part_of is not None

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: ScriptedGpu) -> ScriptedGpu:
        assert migDevice.part_of is not None, "not a part of a card"
        return migDevice.part_of

    def nvmlDeviceGetGpuInstanceId(self, device: ScriptedGpu) -> int:
        assert device.part_of is not None, "not a part of a card"
        return self.gpus.index(device)

    def nvmlGpmQueryDeviceSupport(self, device: ScriptedGpu) -> Any:
        self._hear(device, "nvmlGpmQueryDeviceSupport")
        return SimpleNamespace(version=1, isSupportedDevice=int(bool(device.activity)))

    def nvmlGpmSampleAlloc(self) -> Any:
        self.samples += 1
        return SimpleNamespace(activity=None)

    def nvmlGpmSampleFree(self, gpmSample: Any) -> None:
        self.samples -= 1

    def nvmlGpmSampleGet(self, device: ScriptedGpu, gpmSample: Any) -> Any:
        self._hear(device, "nvmlGpmSampleGet")
        gpmSample.activity = dict(device.activity)
        return gpmSample

    def nvmlGpmMigSampleGet(self, device: ScriptedGpu, gpuInstanceId: int, gpmSample: Any) -> Any:
        gpmSample.activity = dict(self.gpus[gpuInstanceId].activity)
        return gpmSample

    def c_nvmlGpmMetricsGet_t(self) -> Any:
        metrics = [SimpleNamespace(metricId=0, nvmlReturn=0, value=0.0) for _ in range(8)]
        return SimpleNamespace(version=0, numMetrics=0, sample1=None, sample2=None, metrics=metrics)

    def nvmlGpmMetricsGet(self, metricsGet: Any) -> Any:
        """Fills in the values of the second sample; return code 3 (not supported) for metrics that it lacks."""
        assert metricsGet.version == self.NVML_GPM_METRICS_GET_VERSION, metricsGet
        assert metricsGet.sample1.activity is not None, "the first sample was never taken"
        for metric in metricsGet.metrics[: metricsGet.numMetrics]:
            value = metricsGet.sample2.activity.get(metric.metricId)
            metric.value, metric.nvmlReturn = (0.0, 3) if value is None else (value, self.NVML_SUCCESS)
        return metricsGet

    def _hear(self, gpu: ScriptedGpu, question: str) -> None:
        if question in gpu.silent:
            raise NVMLError("Not Supported")
