"""Shared memory belongs to tenants: two of them use the same names for regions of their own, over both wires."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from models.reference import echo_spec
from models.spec import TensorSpec
from serving.api.shared_memory.regions import Regions
from serving.gateway.key_text import NewKey
from serving.protocol.errors import BadMessage
from tests.api.triton_clients import connect, shared_input, shared_output
from tests.gateway.stories import bearer
from tests.gateway.tenancy import ACME, ADMIN, GLOBEX, GLOBEX_ADMIN, Tenancy, tenancy

X = (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
SEEN = {"acme": {"echo"}, "globex": {"echo"}}
WIRES = (over_http, over_grpc)
REGISTERS = {"acme": ADMIN, "globex": GLOBEX_ADMIN}
PREDICTS = {"acme": ACME, "globex": GLOBEX}
MARK = {"acme": 1.0, "globex": 2.0}
NAMES = ("in", "out")
ROWS, ROW_BYTES = 8, 16


class Client:
    """Calls the server for a tenant, whose memory holds its mark and no other number."""

    def __init__(self, served: Tenancy, tenant: str) -> None:
        self.tenant = tenant
        self._connections = {wire: connect(served.served, wire) for wire in WIRES}
        self._key = f"/headway_test_{uuid4().hex}"
        self.memory = shm.create_shared_memory_region(self._key[1:], self._key, ROWS * ROW_BYTES)
        shm.set_shared_memory_region(self.memory, [np.full((ROWS, 4), MARK[tenant], np.float32)])

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        shm.destroy_shared_memory_region(self.memory)

    def register(self, wire: Any, name: str) -> str:
        rows = ROWS - 2 * NAMES.index(name)
        return self._said(wire, REGISTERS, "register_system_shared_memory", name, self._key, rows * ROW_BYTES)

    def unregister(self, wire: Any, name: str) -> str:
        return self._said(wire, REGISTERS, "unregister_system_shared_memory", name)

    def status(self, wire: Any, name: str) -> str:
        return self._said(wire, PREDICTS, "get_system_shared_memory_status", name)

    def infer(self, wire: Any, given: str, wanted: str, rows: int) -> str:
        """Copies rows from one region to the same place of another; "" stands for tensors in messages."""
        row = np.full((rows, 4), MARK[self.tenant], np.float32)
        sent = wire.InferInput("x", [rows, 4], "FP32").set_data_from_numpy(row)
        inputs = [shared_input(wire, "x", (rows, 4), "FP32", given, row.nbytes) if given else sent]
        outputs = [shared_output(wire, "x", wanted, row.nbytes)] if wanted else None
        return self._said(wire, PREDICTS, "infer", "echo", inputs, outputs=outputs)

    def _said(self, wire: Any, keys: dict[str, NewKey], method: str, *arguments: Any, **named: Any) -> str:
        headers = {"authorization": bearer(keys[self.tenant])}
        try:
            answer = getattr(self._connections[wire], method)(*arguments, headers=headers, **named)
        except InferenceServerException as error:
            return f"{error.status()} {error.message()}".replace(self._key, "KEY")
        if method != "infer":
            return str(answer).replace(self._key, "KEY")
        read = answer.as_numpy("x") if named["outputs"] is None else None
        return "" if read is None else str(set(read.ravel().tolist()))


@pytest.fixture(params=["fast", "plain"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tenancy]:
    specs = (echo_spec(inputs=X, outputs=X),)
    with tenancy(request.param, Regions(tmp_path, by_tenant=True), specs=specs, seen=SEEN) as running:
        yield running


@pytest.fixture
def clients(served: Tenancy) -> Iterator[dict[str, Client]]:
    made = {tenant: Client(served, tenant) for tenant in SEEN}
    yield made
    for client in made.values():
        client.close()


def steps(random: Random, count: int) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yields who does what, with which arguments."""
    for _ in range(count):
        wire, name = random.choice(WIRES), random.choice(NAMES)
        places = random.choice(("", *NAMES)), random.choice(("", *NAMES))
        step = random.choice(
            [
                *(2 * [("register", (wire, name))]),
                ("unregister", (wire, random.choice(("", name)))),
                ("status", (wire, random.choice(("", name)))),
                *(3 * [("infer", (wire, *places, random.randint(1, ROWS)))]),
            ]
        )
        yield random.choice(list(SEEN)), *step


def test_a_tenant_cannot_tell_whether_another_uses_the_same_names(served: Tenancy, clients: dict[str, Client]) -> None:
    """Steps of two tenants by turns are answered as those of each alone, and no number of one reaches the other."""
    script = list(steps(Random(15), 300))
    together: dict[str, list[str]] = {tenant: [] for tenant in SEEN}
    for tenant, what, arguments in script:
        together[tenant].append(getattr(clients[tenant], what)(*arguments))
        for each, client in clients.items():
            held = shm.get_contents_as_numpy(client.memory, np.float32, (ROWS, 4))
            assert (held == MARK[each]).all(), (tenant, what, arguments)
    for tenant, client in clients.items():
        for other in clients.values():
            other.unregister(over_http, "")
        alone = [getattr(client, what)(*arguments) for who, what, arguments in script if who == tenant]
        assert together[tenant] == alone
        kinds = ("already in manager", "Unable to find", "beyond the end", f"{{{MARK[tenant]}}}", "'KEY'")
        missing = [kind for kind in kinds if not any(kind in said for said in alone)]
        assert not missing, "the script reaches every kind of answer"


def test_an_operator_is_shown_the_regions_of_all_tenants_and_removes_its_own(clients: dict[str, Client]) -> None:
    for client in clients.values():
        client.register(over_grpc, "in")
    acme = clients["acme"]
    status = acme._connections[over_http].get_system_shared_memory_status
    shown = status(headers={"authorization": bearer(ADMIN)})
    assert {region["name"] for region in shown} == {"in", "globex/in"}
    over = acme._connections[over_grpc].get_system_shared_memory_status("globex/in", {"authorization": bearer(ADMIN)})
    assert list(over.regions) == ["globex/in"]
    acme.unregister(over_http, "")
    assert [region["name"] for region in status(headers={"authorization": bearer(ADMIN)})] == ["globex/in"]
    assert clients["globex"].infer(over_grpc, "in", "in", 1) == ""


def test_a_key_that_may_predict_does_not_name_new_memory(clients: dict[str, Client]) -> None:
    acme = clients["acme"]
    for wire in WIRES:
        for method, arguments in {"register": ("in", acme._key, 16), "unregister": ("in",)}.items():
            said = acme._said(wire, PREDICTS, f"{method}_system_shared_memory", *arguments)
            assert "lacks the scope `admin`" in said


def test_a_tenant_with_as_many_regions_as_it_may_have_leaves_room_for_others(tmp_path: Path) -> None:
    regions = Regions(tmp_path, by_tenant=True)
    key = f"headway_test_{uuid4().hex}"
    memory = shm.create_shared_memory_region(key, f"/{key}", 4)
    try:
        for number in range(512):
            regions.register("system", str(number), {"key": key, "byte_size": 4}, "acme")
        with pytest.raises(BadMessage, match="this tenant has 512 regions, which is the limit"):
            regions.register("system", "more", {"key": key, "byte_size": 4}, "acme")
        regions.register("system", "0", {"key": key, "byte_size": 4}, "globex")
    finally:
        shm.destroy_shared_memory_region(memory)
