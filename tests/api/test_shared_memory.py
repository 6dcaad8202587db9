"""Tensors in system shared memory, with Triton's own client and its helpers, over both wires."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import tritonclient.http as over_http
from tritonclient.utils import serialize_byte_tensor, serialized_byte_size
from tritonclient.utils import shared_memory as shm

from models.reference import slow_spec
from serving.api.shared_memory.regions import Regions
from tests.api.triton_clients import ECHO, connect, failure, shared_input, shared_output
from tests.house import House, house

VALUES = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("regions")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[House]:
    with house(ECHO, slow_spec(options={"base_ms": 300}), regions=Regions(folder)) as running:
        yield running


@pytest.fixture
def memory() -> Iterator[object]:
    """Makes regions of a given number of zero bytes; returns handle and key."""
    made: list[object] = []

    def make(byte_size: int) -> tuple[object, str]:
        key = f"/headway_test_{uuid4().hex}"
        made.append(shm.create_shared_memory_region(key[1:], key, byte_size))
        return made[-1], key

    yield make
    for handle in made:
        shm.destroy_shared_memory_region(handle)


def test_numbers_and_texts_come_from_one_region_and_go_to_another(wire, triton, memory) -> None:
    texts = np.array([[b"one"], [b"two and more"]], dtype=object)
    text_bytes = serialized_byte_size(serialize_byte_tensor(texts))
    given, given_key = memory(256)
    gotten, gotten_key = memory(256)
    shm.set_shared_memory_region(given, [VALUES])
    shm.set_shared_memory_region(given, [serialize_byte_tensor(texts)], offset=VALUES.nbytes)
    triton.register_system_shared_memory("given", given_key, 256)
    triton.register_system_shared_memory("gotten", gotten_key, 200, offset=56)
    inputs = [
        shared_input(wire, "x", (2, 4), "FP32", "given", VALUES.nbytes),
        shared_input(wire, "t", (2, 1), "BYTES", "given", text_bytes, VALUES.nbytes),
    ]
    outputs = [
        shared_output(wire, "x", "gotten", VALUES.nbytes, 8),
        shared_output(wire, "t", "gotten", 100, 100),
    ]
    for _ in range(2):  # the second time all plans are known
        result = triton.infer("echo", inputs, outputs=outputs, request_id="7")
        assert np.array_equal(shm.get_contents_as_numpy(gotten, np.float32, (2, 4), offset=64), VALUES)
        assert np.array_equal(shm.get_contents_as_numpy(gotten, np.object_, (2, 1), offset=156), texts)
        shm.set_shared_memory_region(gotten, [np.zeros(64, np.float32)])
    described = result.get_output("x")
    assert (described["shape"] if wire is over_http else list(described.shape)) == [2, 4]


def test_what_is_shared_and_what_is_sent_may_be_mixed(wire, triton, memory) -> None:
    handle, key = memory(64)
    shm.set_shared_memory_region(handle, [VALUES])
    triton.register_system_shared_memory("r", key, 64)
    texts = np.array([[b"a"], [b"b"]], dtype=object)
    sent = wire.InferInput("t", [2, 1], "BYTES").set_data_from_numpy(texts)
    inputs = [sent, shared_input(wire, "x", (2, 4), "FP32", "r", VALUES.nbytes)]
    outputs = [shared_output(wire, "x", "r", 32, 32), wire.InferRequestedOutput("t")]
    result = triton.infer("echo", inputs, outputs=outputs)
    assert np.array_equal(result.as_numpy("t"), texts)
    assert np.array_equal(shm.get_contents_as_numpy(handle, np.float32, (2, 4), offset=32), VALUES)


def test_regions_are_listed_and_forgotten(wire, triton, memory) -> None:
    _, key = memory(64)
    triton.register_system_shared_memory("a", key, 32)
    triton.register_system_shared_memory("b", key, 16, offset=48)
    status = triton.get_system_shared_memory_status()
    found = status if wire is over_http else [status.regions[name] for name in sorted(status.regions)]
    facts = itemgetter if wire is over_http else attrgetter
    assert sorted(map(facts("name", "offset", "byte_size"), found)) == [("a", 0, 32), ("b", 48, 16)]
    assert "already in manager" in failure(triton.register_system_shared_memory, "a", key, 32)
    triton.unregister_system_shared_memory("a")
    triton.unregister_system_shared_memory("never there")
    assert "404" in (gone := failure(triton.get_system_shared_memory_status, "a")) or "NOT_FOUND" in gone
    triton.unregister_system_shared_memory()
    status = triton.get_system_shared_memory_status()
    assert not (status if wire is over_http else status.regions)


@pytest.mark.parametrize(
    "key", ["../etc/passwd", "/..", "a/b", "", "/", "plasma_x", "triton_python_backend_shm_region_1"]
)
def test_a_key_that_leads_elsewhere_is_refused(triton, key: str) -> None:
    assert "key" in failure(triton.register_system_shared_memory, "r", key, 4)


def test_a_region_has_to_be_there_and_large_enough(triton, memory) -> None:
    register = triton.register_system_shared_memory
    _, key = memory(64)
    assert "Unable to open shared memory region: '/nothing': No such file" in failure(register, "r", "/nothing", 4)
    assert f"shared memory '{key}' has 64 bytes, but region 'r' ends at byte 65" in failure(register, "r", key, 64, 1)
    assert "byte_size of at least 1" in failure(register, "r", key, 0)


def test_a_tensor_has_to_lie_within_its_region(wire, triton, memory) -> None:
    handle, key = memory(64)
    shm.set_shared_memory_region(handle, [VALUES])
    triton.register_system_shared_memory("r", key, 40)
    text = wire.InferInput("t", [2, 1], "BYTES").set_data_from_numpy(np.array([[b"a"], [b"b"]], dtype=object))

    def said(inputs, outputs=None) -> str:
        return failure(triton.infer, "echo", [*inputs, text], outputs=outputs)

    inside = shared_input(wire, "x", (2, 4), "FP32", "r", 32)
    assert "32 bytes at offset 9 are beyond the end of shared memory region 'r', which has 40 bytes" in said(
        [shared_input(wire, "x", (2, 4), "FP32", "r", 32, 9)]
    )
    assert "28 bytes of data, but the shape and FP32 need 32" in said(
        [shared_input(wire, "x", (2, 4), "FP32", "r", 28)]
    )
    assert "Unable to find shared memory region: 'none'" in said([shared_input(wire, "x", (2, 4), "FP32", "none", 32)])
    assert "outputs[0]: 32 bytes at offset 9" in said([inside], [shared_output(wire, "x", "r", 32, 9)])
    assert "'x' (16 bytes) should be at least 32 bytes" in said([inside], [shared_output(wire, "x", "r", 16)])


def test_memory_that_was_cut_short_is_noticed_before_it_is_read(wire, triton, memory) -> None:
    _, key = memory(8192)
    triton.register_system_shared_memory("r", key, 8192)
    with Path("/dev/shm", key[1:]).open("r+b") as file:
        file.truncate(4096)
    text = wire.InferInput("t", [1, 1], "BYTES").set_data_from_numpy(np.array([[b"a"]], dtype=object))
    inputs = [shared_input(wire, "x", (1, 2048), "FP32", "r", 8192), text]
    assert "has 4096 bytes, but region 'r' ends at byte 8192" in failure(triton.infer, "echo", inputs)


def test_a_region_that_is_unregistered_while_a_request_uses_it_serves_that_request(
    served: House, triton, wire, memory
) -> None:
    handle, key = memory(8)
    triton.register_system_shared_memory("r", key, 8)
    inputs = [shared_input(wire, "x", (1, 1), "FP32", "r", 4)]
    outputs = [shared_output(wire, "y", "r", 4, 4)]
    shm.set_shared_memory_region(handle, [np.array([5], np.float32)])
    before = served.engines["slow"].ledger.received

    def ask() -> None:
        with connect(served, wire) as client:
            client.infer("slow", inputs, outputs=outputs)

    with ThreadPoolExecutor() as pool:
        running = pool.submit(ask)
        served.until(lambda: served.engines["slow"].ledger.received > before)
        triton.unregister_system_shared_memory()
        running.result()
    assert shm.get_contents_as_numpy(handle, np.float32, (1,), offset=4)[0] == 5
    assert "Unable to find" in failure(triton.infer, "slow", inputs)
