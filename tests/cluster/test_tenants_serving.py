"""Tests keys, tenants and quotas on `headway serve` as a user starts it: real Ray, HAProxy and Valkey."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import yaml
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm
from typer.testing import CliRunner

from serving.cli import app
from serving.operate.processes import descendants
from tests.cluster.conftest import NOOP, settings_file
from tests.cluster.traffic import inputs
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
PORT, GRPC_PORT = 18531, 18533
BURST = 40
TENANTS = {
    "acme": {"models": ["noop"], "requests_per_minute": 60, "burst": BURST},
    "globex": {"burst": 200},
    "initech": {"burst": 200},
}


@dataclass
class Served:
    """A running server with the keys of three tenants; `globex` has the scope `admin` too."""

    process: "subprocess.Popen[bytes]"
    log: Path
    path: Path
    acme: str
    globex: str
    initech: str

    def http(self, key: str = "", **more: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=f"http://127.0.0.1:{PORT}", headers=headers, timeout=30, **more)

    def command(self, *words: str) -> str:
        return keys_command(self.path, *words)


def keys_command(path: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["keys", *words, "--config", str(path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def key(path: Path, tenant: str, *scopes: str) -> str:
    words = [word for scope in scopes for word in ("--scope", scope)]
    made: str = json.loads(keys_command(path, "create", "--tenant", tenant, *words, "--json"))["key"]
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tenants")
    models = {"replicas": 2, **NOOP}, {**NOOP, "name": "secret"}
    server = {"auth": {"keys": True}, "state": str(folder / "state"), "shared_memory": True}
    path = settings_file(folder, *models, http_port=PORT, grpc_port=GRPC_PORT, **server)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"tenants": TENANTS}))
    acme, globex, initech = (key(path, tenant, *scopes) for tenant, *scopes in (
        ("acme", "predict"), ("globex", "predict", "admin"), ("initech", "predict"),
    ))  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "serving", "serve", str(path)], stdout=output, stderr=output)
    try:
        eventually(lambda: (process.poll(), log.read_text()), lambda seen: "is ready at" in seen[1], patience_s=120)
        yield Served(process, log, path, acme, globex, initech)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_the_start_says_how_to_make_a_key_and_that_a_valkey_counts(served: Served) -> None:
    said = served.log.read_text()
    assert "a Valkey of Headway's own" in said
    assert f"headway keys create --tenant me --scope predict --config {served.path}" in said


def test_unmodified_tritonclient_sends_the_key_over_both_wires(served: Served) -> None:
    for client in (
        tritonclient.http.InferenceServerClient(f"127.0.0.1:{PORT}"),
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{GRPC_PORT}"),
    ):
        with client:
            given = inputs() if isinstance(client, tritonclient.http.InferenceServerClient) else grpc_inputs()
            headers = {"authorization": f"Bearer {served.globex}"}
            assert client.infer("secret", given, headers=headers).as_numpy("y").shape == (1, 1)
            with pytest.raises(InferenceServerException, match="no valid credential"):
                client.infer("secret", given)


def grpc_inputs() -> list[Any]:
    given = tritonclient.grpc.InferInput("x", [1, 1024], "FP32")
    given.set_data_from_numpy(np.ones((1, 1024), np.float32))
    return [given]


def test_a_region_of_shared_memory_is_there_for_its_tenant_only_in_every_replica(served: Served) -> None:
    name = f"/headway_test_{os.getpid()}"
    memory = shm.create_shared_memory_region(name[1:], name, 4096)
    own, other = ({"authorization": f"Bearer {one}"} for one in (served.globex, served.initech))
    try:
        shm.set_shared_memory_region(memory, [np.ones(1024, np.float32)])
        for wire, port in ((tritonclient.http, PORT), (tritonclient.grpc, GRPC_PORT)):
            with wire.InferenceServerClient(f"127.0.0.1:{port}") as client:
                client.register_system_shared_memory("in", name, 4096, headers=own)
                x = wire.InferInput("x", [1, 1024], "FP32")
                x.set_shared_memory("in", 4096)
                for _ in range(8):  # reaches both replicas
                    assert client.infer("noop", [x], headers=own).as_numpy("y").shape == (1, 1)
                    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'in'"):
                        client.infer("noop", [x], headers=other)
                with pytest.raises(InferenceServerException, match="Unable to find system shared memory region: 'in'"):
                    client.get_system_shared_memory_status("in", headers=other)
                with pytest.raises(InferenceServerException, match="lacks the scope `admin`"):
                    client.register_system_shared_memory("in", name, 4096, headers=other)
                client.unregister_system_shared_memory("in", headers=own)
    finally:
        shm.destroy_shared_memory_region(memory)


def test_a_model_of_others_does_not_exist_wherever_one_looks(served: Served) -> None:
    with served.http(served.acme) as client:
        assert [entry["name"] for entry in client.post("/v2/repository/index").json()] == ["noop"]
        assert [entry["name"] for entry in client.get("/v2/models/stats").json()["model_stats"]] == ["noop"]
        assert not [path for path in client.get("/openapi.json").json()["paths"] if "secret" in path]
        foreign, absent = client.get("/v2/models/secret/config"), client.get("/v2/models/nobody/config")
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace("secret", "nobody") == absent.text
        assert client.get("/-/routes").status_code == 404


def test_one_limit_holds_for_all_replicas(served: Served) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": [0] * 1024}]}
    codes, refused = [], None
    for _ in range(2 * BURST):
        with served.http(served.acme) as client:  # a new connection each, so that both replicas are asked
            answer = client.post("/v2/models/noop/infer", json=body)
        codes.append(answer.status_code)
        refused = answer if answer.status_code == 429 else refused
    assert set(codes) == {200, 429}
    assert refused is not None
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-policy"] == '"minute";q=60;w=60'


def test_a_revoked_key_is_refused_and_a_rotated_one_goes_on(served: Served) -> None:
    old = key(served.path, "globex", "predict")
    new = json.loads(served.command("rotate", old.split("_")[1], "--overlap", "1h", "--json"))["key"]

    def status(shown: str) -> int:
        with served.http(shown) as client:
            return client.get("/v2/models/secret").status_code

    eventually(lambda: (status(old), status(new)), lambda seen: seen == (200, 200))
    served.command("revoke", old.split("_")[1])
    eventually(lambda: (status(old), status(new)), lambda seen: seen == (401, 200))


def test_no_log_page_or_record_holds_a_key(served: Served) -> None:
    with served.http(served.globex) as client:
        client.post("/v2/logging", json={"log_info": True})
        pages = [client.get(path).text for path in ("/metrics", "/debug/state", "/debug/stacks", "/dashboard/data")]
    session = Path(os.path.realpath("/tmp/ray/session_latest/logs"))
    files = [*session.rglob("*.log"), *session.rglob("*.out"), *session.rglob("*.err")]
    files += [path for path in served.path.parent.rglob("*") if path.is_file() and path != served.path]
    texts = [*pages, *(path.read_text(errors="replace") for path in files)]
    for secret in (served.acme, served.globex):
        assert not [text for text in texts if secret.split("_")[2][:16] in text]
    audit = "".join(path.read_text() for path in (served.path.parent / "state" / "audit").glob("*.jsonl"))
    assert '"action":"log"' in audit
    assert served.globex.split("_")[1] in audit


def test_the_end_ends_the_valkey_too(served: Served) -> None:
    children = descendants(served.process.pid)
    assert any("valkey" in Path(f"/proc/{pid}/cmdline").read_text() for pid in children)
    served.process.send_signal(signal.SIGINT)
    served.process.wait(60)
    eventually(lambda: [pid for pid in children if Path(f"/proc/{pid}").exists()], lambda left: not left)
