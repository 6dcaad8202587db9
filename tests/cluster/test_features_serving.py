"""Tests the feature store on `headway serve` as a user starts it: real Ray, HAProxy and Valkey, keys of tenants."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc
import tritonclient.utils
import yaml
from typer.testing import CliRunner

from serving.cli import app
from serving.operate.processes import descendants
from tests.cluster.conftest import NOOP, settings_file
from tests.cluster.test_tenants_serving import key
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
PORT, GRPC_PORT = 18541, 18543
URL = f"http://127.0.0.1:{PORT}"
FEATURES = """\
served_share: 1.0
entities: {user: {key: user_id}}
views:
  stats:
    entity: user
    transform: made_of_raw:stats
    features:
      age: {type: INT64}
      country: {type: BYTES, missing: default, default: "??"}
      spend: {type: FP32, missing: default, default: 0.5}
"""
TRANSFORM = """\
import pyarrow as pa, pyarrow.compute as pc

def stats(raw):
    age = pc.subtract(2026, raw["born"])
    return pa.table({"age": age, "country": pc.utf8_upper(raw["country"]), "spend": pa.nulls(len(age), pa.float32())})
"""
ECHO = {
    "name": "bound",
    "factory": "models.reference:echo",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    "resources": {"cpus": 0.1},
    "features": {"entity_input": "user_id", "inputs": {"x": ["stats.age", "stats.spend"]}},
    "cache": {"ttl_s": 60},
}


@dataclass
class Served:
    """A running server, and files with keys: a reader of each tenant, and one of acme that pushes."""

    process: "subprocess.Popen[bytes]"
    settings: Path
    acme: Path
    globex: Path
    feeder: Path

    def features(self, *words: str, key: Path) -> str:
        done = CliRunner().invoke(app, ["features", *words, "--url", URL, "--key-file", str(key)])
        return done.stdout if done.exit_code == 0 else f"failed: {done.stderr}"

    def reads(self, expected: str, *words: str, key: Path) -> None:
        """Reads until the answer holds this: on a busy machine a look-up may take more than its time."""
        eventually(lambda: self.features(*words, key=key), lambda told: expected in told, patience_s=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("features")
    state = str(folder / "state")
    path = settings_file(folder, NOOP, ECHO, http_port=PORT, grpc_port=GRPC_PORT, auth={"keys": True}, state=state)
    (folder / "views.yaml").write_text(FEATURES)
    (folder / "made_of_raw.py").write_text(TRANSFORM)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"features": "views.yaml"}))
    files = []
    for tenant, scope in (("acme", "predict"), ("globex", "predict"), ("acme", "features:write")):
        files.append(folder / f"{tenant}-{scope.partition(':')[0]}.key")
        files[-1].write_text(key(path, tenant, scope))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "serving", "serve", str(path)], stdout=output, stderr=output)
    try:
        eventually(lambda: (process.poll(), log.read_text()), lambda seen: "is ready at" in seen[1], patience_s=120)
        yield Served(process, path, *files)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_what_one_tenant_pushes_it_reads_and_no_other_does(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"user_id,event_ts,age,country\n7,{time.time()},41,DE\n")
    assert "lacks the scope `features:write`" in served.features("push", str(file), "--view", "stats", key=served.acme)
    assert served.features("push", str(file), "--view", "stats", key=served.feeder) == ""
    assert "lacks the scope `predict`" in served.features("get", "stats", "7", key=served.feeder)
    served.reads('"DE"', "get", "stats", "7", key=served.acme)
    served.reads("the value of user '7' is not known", "get", "stats", "7", key=served.globex)


def test_raw_rows_become_features_by_the_function_of_the_view(served: Served) -> None:
    headers = {"authorization": f"Bearer {served.feeder.read_text()}"}
    raw = [{"user_id": "raw", "event_ts": time.time(), "born": 1985, "country": "pe"}]
    told = httpx.post(f"{URL}/v2/features/stats", json={"raw": raw}, headers=headers)
    assert (told.status_code, told.json()) == (200, {"written": 2, "superseded": 0})
    served.reads('"PE"', "get", "stats", "raw", key=served.acme)


def test_the_server_offers_features_and_describes_them(served: Served) -> None:
    headers = {"authorization": f"Bearer {served.globex.read_text()}"}
    assert "features" in httpx.get(f"{URL}/v2", headers=headers).json()["extensions"]
    views = httpx.get(f"{URL}/v2/features", headers=headers).json()["views"]
    assert [(view["name"], [feature["name"] for feature in view["features"]]) for view in views] == [
        ("stats", ["age", "country", "spend"])
    ]


def test_a_model_gets_the_features_of_the_users_whose_ids_a_client_sends(served: Served, tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {served.acme.read_text()}"}
    (inputs,) = httpx.get(f"{URL}/v2/models/bound", headers=headers).json()["inputs"]
    assert inputs == {"name": "user_id", "datatype": "BYTES", "shape": [-1, 1]}
    described = httpx.get(f"{URL}/openapi.json", headers=headers).json()["paths"]["/v2/models/bound/infer"]
    assert described["post"]["x-model"]["inputs"][0]["name"] == "user_id"

    def push(**values: object) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps({"user_id": id, "event_ts": time.time(), **values}) + "\n" for id in "89"))
        assert served.features("push", str(file), "--view", "stats", key=served.feeder) == ""

    def answers(expected: object, *ids: str) -> None:
        eventually(lambda: over_http(*ids), lambda told: told == expected, patience_s=60)

    def over_http(*ids: str) -> object:
        given = {"name": "user_id", "datatype": "BYTES", "shape": [len(ids), 1], "data": list(ids)}
        answer = httpx.post(f"{URL}/v2/models/bound/infer", json={"inputs": [given]}, headers=headers)
        told = answer.json()
        return told["outputs"][0]["data"] if answer.status_code == 200 else (answer.status_code, told["error"])

    push(age=30)
    answers([30.0, 0.5, 30.0, 0.5], "8", "9")
    push(spend=2.5)
    answers([30.0, 2.5, 30.0, 2.5], "8", "9")  # the cache sees the features, not only the ids
    answers((400, "stats.age: the value of user 'none' is not known"), "8", "none")
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{GRPC_PORT}") as client:
        given = tritonclient.grpc.InferInput("user_id", [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[b"9"]], dtype=object))

        def over_grpc() -> object:
            try:
                return client.infer("bound", [given], headers=headers).as_numpy("y").tolist()
            except tritonclient.utils.InferenceServerException as error:
                return str(error)

        eventually(over_grpc, lambda told: told == [[30.0, 2.5]], patience_s=60)
    given = {"name": "user_id", "datatype": "BYTES", "shape": [1, 1], "data": ["7"]}
    asked = {"inputs": [given], "parameters": {"feature_reasons": True}}

    def said() -> str | None:
        return httpx.post(f"{URL}/v2/models/bound/infer", json=asked, headers=headers).headers.get("x-headway-features")

    eventually(said, lambda told: told == "stats.spend=missing:1", patience_s=60)


def test_while_valkey_is_gone_defaults_are_served_and_required_features_are_refused(served: Served) -> None:
    (valkey,) = [
        pid for pid in descendants(served.process.pid) if "valkey-server" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(valkey, signal.SIGSTOP)
    try:
        told = served.features("get", "stats", "7", "--feature", "country", key=served.acme)
        assert '"??"' in told
        assert "unavailable" in told
        assert "the feature store does not answer" in served.features("get", "stats", "7", key=served.acme)
    finally:
        os.kill(valkey, signal.SIGCONT)
    eventually(
        lambda: served.features("get", "stats", "7", key=served.acme), lambda told: '"DE"' in told, patience_s=60
    )


def test_when_the_server_is_killed_what_was_pushed_is_in_training_sets_and_agrees_with_what_was_served(
    served: Served, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"user_id,event_ts,age,country\nkilled,{time.time()},42,DK\n")
    assert served.features("push", str(file), "--view", "stats", key=served.feeder) == ""
    served.reads('"DK"', "get", "stats", "killed", key=served.acme)
    folder = served.settings.parent / "state" / "features" / "served"

    def logged() -> str:
        lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines(keepends=True)]
        return "".join(line for line in lines if '"id":"killed"' in line)

    eventually(logged)
    after = datetime.now(UTC)
    started = descendants(served.process.pid)
    served.process.send_signal(signal.SIGKILL)
    served.process.wait()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    pq.write_table(pa.table({"user_id": ["killed", "nobody"], "event_ts": [after, after]}), tmp_path / "labels.parquet")
    words = ["history", str(tmp_path / "labels.parquet"), "--views", "stats", "--tenant", "acme"]

    def training_set() -> dict[str, list[object]]:
        to = tmp_path / "training.parquet"
        made = CliRunner().invoke(app, ["features", *words, "--out", str(to), "--config", str(served.settings)])
        return pq.read_table(to).to_pydict() if made.exit_code == 0 else {"failed": [made.stderr]}

    # The front holds its file until the system has ended it.
    found = eventually(training_set, lambda found: found.get("stats__age") == [42, None], patience_s=60)
    assert found["stats__country"] == ["DK", "??"]
    (tmp_path / "served.jsonl").write_text(logged())
    words = ["features", "check", str(tmp_path / "served.jsonl"), "--config", str(served.settings)]
    checked = CliRunner().invoke(app, words)
    assert checked.exit_code == 0, checked.output
