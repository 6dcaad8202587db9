"""Tensors in GPU memory that a client shares, over both wires: with the driver of `serving.testing`, which uses main
memory, and with NVIDIA's if there is a GPU."""

import base64
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as over_http
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from serving.api.shared_memory.cuda_driver import LIBRARY, CudaDriver, CudaError, own_number
from serving.api.shared_memory.memory import CudaMemory, region_of
from serving.api.shared_memory.regions import Regions
from serving.protocol.errors import BadMessage
from serving.protocol.spans import Span
from serving.testing.cuda_driver import build_driver
from tests.api import cuda_stories
from tests.api.cuda_client import SharedMemory
from tests.api.triton_clients import ECHO, connect, failure, shared_input, shared_output
from tests.house import House, house
from tests.tidy.tables import ROOT, THIRD_PARTY

VALUES = np.arange(8, dtype=np.float32).reshape(2, 4)
TEXTS = np.array([[b"one"], [b"two and more"]], dtype=object)


def has_gpu() -> bool:
    try:
        CudaDriver(LIBRARY).open(b"\1" * 64, 0)
    except OSError:
        return False
    except CudaError as error:
        return "cuIpcOpenMemHandle" in str(error)
    return True


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no GPU")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=(pytest.mark.gpu, needs_gpu))])
def library(request: pytest.FixtureRequest, fake: Path) -> Path | str:
    return fake if request.param == "fake" else LIBRARY


@pytest.fixture(scope="module")
def served(library: Path | str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(ECHO, regions=Regions(tmp_path_factory.mktemp("regions"), CudaDriver(str(library)))) as running:
        yield running


@pytest.fixture
def memory(library: Path | str) -> Iterator[SharedMemory]:
    with SharedMemory(256, library) as shared:
        yield shared


def inputs_in(wire, region: str, texts_bytes: int):
    return [
        shared_input(wire, "x", (2, 4), "FP32", region, VALUES.nbytes),
        shared_input(wire, "t", (2, 1), "BYTES", region, texts_bytes, VALUES.nbytes),
    ]


@pytest.mark.parametrize("story", cuda_stories.STORIES, ids=lambda story: story.__name__)
def test_sharing_memory_with_any_driver(library: Path | str, story) -> None:
    story(library)


def test_the_stories_need_numpy_alone(fake: Path) -> None:
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({sorted({*THIRD_PARTY, "pytest"} - {"numpy"})}))  # as if they were not installed
sys.argv[1:] = [{str(fake)!r}]
runpy.run_module("tests.api.cuda_stories", run_name="__main__", alter_sys=True)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"passed {story.__name__}" for story in cuda_stories.STORIES]


def test_numbers_and_texts_come_from_a_gpus_memory_and_go_there(wire, triton, memory: SharedMemory) -> None:
    texts = serialize_byte_tensor(TEXTS).item()
    memory.write(VALUES.tobytes() + texts)
    triton.register_cuda_shared_memory("gpu", memory.handle, 0, memory.byte_size)
    outputs = [shared_output(wire, "x", "gpu", 32, 100), shared_output(wire, "t", "gpu", 100, 150)]
    for _ in range(2):  # the second time all plans are known, and the memory is open
        triton.infer("echo", inputs_in(wire, "gpu", len(texts)), outputs=outputs)
        assert memory.read(100, 32) == VALUES.tobytes()
        assert list(deserialize_bytes_tensor(memory.read(150, len(texts)))) == list(TEXTS.ravel())
        memory.write(bytes(150), offset=100)


def test_only_regions_of_a_kind_are_listed_and_forgotten_together(wire, triton, memory: SharedMemory) -> None:
    triton.register_cuda_shared_memory("a", memory.handle, 0, 256)
    triton.register_cuda_shared_memory("b", memory.handle, 0, 128)
    status = triton.get_cuda_shared_memory_status()
    facts = status if wire is over_http else [
        {"name": r.name, "device_id": r.device_id, "byte_size": r.byte_size} for r in status.regions.values()
    ]  # fmt: skip
    assert sorted(facts, key=lambda region: region["name"]) == [
        {"name": "a", "device_id": 0, "byte_size": 256},
        {"name": "b", "device_id": 0, "byte_size": 128},
    ]
    system = triton.get_system_shared_memory_status()
    assert not (system if wire is over_http else system.regions)
    assert "already in manager" in failure(triton.register_cuda_shared_memory, "a", memory.handle, 0, 256)
    triton.unregister_system_shared_memory()
    triton.unregister_system_shared_memory("a")
    assert triton.get_cuda_shared_memory_status("a")
    triton.unregister_cuda_shared_memory("a")
    assert "Unable to find cuda shared memory region: 'a'" in failure(triton.get_cuda_shared_memory_status, "a")
    assert triton.get_cuda_shared_memory_status("b")


def test_what_is_no_handle_is_refused_when_it_is_registered(triton) -> None:
    register = triton.register_cuda_shared_memory
    assert "raw_handle: must be a CUDA IPC handle: 64 bytes" in failure(register, "r", b"aGFuZGxl", 0, 64)
    handle = base64.b64encode(b"\1" * 64)
    assert "byte_size of at least 1" in failure(register, "r", handle, 0, 0)
    assert "device_id" in failure(register, "r", handle, -1, 64)


def test_what_cannot_be_opened_is_refused_when_it_is_used(wire, triton, memory: SharedMemory) -> None:
    register = triton.register_cuda_shared_memory
    register("nothing", base64.b64encode(b"\1" * 64), 0, 256)
    register("elsewhere", memory.handle, 99, 256)
    register("small", memory.handle, 0, 64 << 20)

    def said(region: str) -> str:
        return failure(triton.infer, "echo", inputs_in(wire, region, 40))

    assert "Unable to open CUDA shared memory region 'nothing': cuIpcOpenMemHandle_v2: CUDA_ERROR" in said("nothing")
    assert "'elsewhere': cuDeviceGet: CUDA_ERROR_INVALID_DEVICE" in said("elsewhere")
    assert "not the 67108864 that were registered" in said("small")
    register("right", memory.handle, 0, 200)
    outside = [shared_output(wire, "x", "right", 32, 169)]
    assert "outputs[0]: 32 bytes at offset 169 are beyond the end of" in failure(
        triton.infer, "echo", inputs_in(wire, "right", 40), outputs=outside
    )


def test_any_failing_call_of_the_driver_is_reported_and_leaves_nothing_open(tmp_path: Path) -> None:
    """Asserts that no context stays current in the thread and that no memory stays open."""
    library = build_driver(tmp_path)
    injected = ctypes.CDLL(str(library))
    with SharedMemory(64, library) as shared:
        facts = {"raw_handle": {"b64": shared.handle.decode()}, "device_id": 0, "byte_size": 64}
        region = region_of("cuda", "r", facts, ticket="", tenant="")

        def error_of_copying(fail_in: int) -> str:
            injected.fake_fail_in(fail_in)
            try:
                memory = CudaMemory(region, CudaDriver(str(library)))
                buffer, start = memory.view(Span("r", 0, 4))
                memory.write(Span("r", 4, 4), np.frombuffer(buffer, np.uint8, 4, start))
                return ""
            except BadMessage as error:
                return str(error)
            finally:
                injected.fake_fail_in(-1)

        shared.write(b"done")
        calls = 0
        while error := error_of_copying(calls):
            assert "shared memory region 'r': " in error
            assert "CUDA_ERROR_ILLEGAL_ADDRESS (700)" in error
            assert cuda_stories.current_context(library) == 0
            assert injected.fake_open_memories() == 0
            assert shared.read(4, 4) == bytes(4)
            calls += 1
        assert shared.read(4, 4) == b"done"
        assert calls > 8
        assert injected.fake_open_memories() == 0


def test_a_machine_without_the_driver_says_so(wire, tmp_path: Path) -> None:
    with house(ECHO, regions=Regions(tmp_path)) as running, connect(running, wire) as client:
        refusal = failure(client.register_cuda_shared_memory, "r", base64.b64encode(b"\1" * 64), 0, 64)
        assert "CUDA shared memory needs NVIDIA's driver, and this machine has none" in refusal
        client.unregister_cuda_shared_memory()


@pytest.mark.parametrize(
    ("device", "visible", "own"),
    [(2, None, 2), (2, ("2",), 0), (3, ("1", "3"), 1), (0, ("3",), 0), (1, ("GPU-5ad0",), 0)],
)
def test_a_gpu_is_found_by_the_number_its_client_knows(device: int, visible: tuple[str, ...] | None, own: int) -> None:
    assert own_number(device, visible) == own
