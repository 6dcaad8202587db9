"""Tests the choice of versions in the real HAProxy, with both wires and the front's routing table, without Ray."""

import signal
from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from serving.cluster.haproxy.following import TABLE
from tests.cluster.two_versions import Client, TwoVersions, over_grpc
from tests.patience import eventually
from tests.ports import free_port


@pytest.fixture
def two(tmp_path: Path) -> Iterator[TwoVersions]:
    with TwoVersions(tmp_path) as running:
        yield running


@pytest.fixture
def client(two: TwoVersions) -> Client:
    """A client of a HAProxy that knows the routes."""
    two.know()
    two.start()
    client = two.client()
    eventually(client.is_answered, bool, beside=two.said)
    return client


def moved(client: Client, version: str) -> None:
    eventually(client.version, lambda found: found == version)


def test_a_request_reaches_the_version_that_it_names_and_else_the_stable_one(two: TwoVersions, client: Client) -> None:
    for stable in ("1", "2", "1"):
        two.set(stable)
        moved(client, stable)
        for version in ("1", "2"):
            path = f"/v2/models/ranker/versions/{version}/infer"
            assert client.ask(path)[1]["model_version"] == version
        status, answer = client.ask("/v2/models/ranker/versions/3/infer")
        assert (status, "unknown model" in answer["error"]) == (404, True)
        assert client.ask("/v2/models/alone/infer")[1]["model_version"] == "1"


def test_a_share_of_the_keys_goes_to_the_candidate_always_the_same_ones(two: TwoVersions, client: Client) -> None:
    route = two.set("1", "2", 500)
    eventually(two.table, lambda text: "|500" in text)
    keys = [f"user-{number}" for number in range(1_000)]
    found = [client.version(x_routing_key=key) for key in keys]
    assert found == [route.chosen(key) for key in keys]
    assert abs(found.count("2") - 50) < 4 * sqrt(1_000 * 0.05 * 0.95)
    sticky = [key for key, version in zip(keys, found, strict=True) if version == "2"]
    assert {client.version(x_routing_key=key) for key in sticky for _ in range(3)} == {"2"}


def test_without_a_routing_key_the_credential_counts_and_then_the_address(two: TwoVersions, client: Client) -> None:
    route = two.set("1", "2", 5000)
    eventually(two.table, lambda text: "|5000" in text)
    credentials = [f"Bearer key-{number}" for number in range(40)]
    assert [client.version(authorization=one) for one in credentials] == [route.chosen(one) for one in credentials]
    chosen = [client.version(authorization=one, x_routing_key="mine") for one in credentials]
    assert chosen == [route.chosen("mine")] * 40
    assert {client.version() for _ in range(10)} == {route.chosen("127.0.0.1")}
    assert {client.version(x_routing_key="") for _ in range(10)} == {route.chosen("127.0.0.1")}


def test_over_grpc_it_is_the_same(two: TwoVersions, client: Client) -> None:
    route = two.set("1", "2", 5000)
    eventually(two.table, lambda text: "|5000" in text)
    assert [over_grpc(two.grpc_port, version) for version in ("1", "2")] == ["1", "2"]
    keys = [f"user-{number}" for number in range(12)]
    assert [over_grpc(two.grpc_port, key=key) for key in keys] == [route.chosen(key) for key in keys]
    assert over_grpc(two.grpc_port) == route.chosen("127.0.0.1")
    with pytest.raises(InferenceServerException, match="version 3 is not found"):
        over_grpc(two.grpc_port, "3")


def test_compressed_messages_reach_the_same_versions_by_way_of_the_front(two: TwoVersions, client: Client) -> None:
    route = two.set("1", "2", 5000)
    eventually(two.table, lambda text: "|5000" in text)
    packed = {"compression_algorithm": "gzip"}
    assert [over_grpc(two.grpc_port, version, **packed) for version in ("1", "2")] == ["1", "2"]
    keys = [f"user-{number}" for number in range(8)]
    assert [over_grpc(two.grpc_port, key=key, **packed) for key in keys] == [route.chosen(key) for key in keys]
    assert over_grpc(two.grpc_port, **packed) == route.chosen("127.0.0.1")


def test_other_calls_about_a_version_reach_it_too(two: TwoVersions, client: Client) -> None:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{two.grpc_port}") as connected:
        for version in ("1", "2"):
            assert connected.get_model_metadata("ranker", version).versions == [version]
            assert connected.is_model_ready("ranker", version)
        assert not connected.is_model_ready("ranker", "3")


def test_the_requests_of_a_stream_reach_the_versions_that_they_name(two: TwoVersions, client: Client) -> None:
    answers: list[str] = []
    given = tritonclient.grpc.InferInput("x", [1, 2], "FP32")
    given.set_data_from_numpy(np.ones((1, 2), np.float32))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{two.grpc_port}") as connected:
        connected.start_stream(lambda result, error: answers.append(str(error or result.get_response().model_version)))
        for version in ("2", "1", "2", "1"):
            connected.async_stream_infer("ranker", [given], model_version=version)
        connected.stop_stream()
    assert answers == ["2", "1", "2", "1"]


def test_all_haproxies_follow(two: TwoVersions, client: Client) -> None:
    port = free_port()
    two.start(name="other", port=port)
    other = two.client(port)
    eventually(other.is_answered, bool)
    for stable in ("2", "1", "2"):
        two.set(stable)
        moved(client, stable)
        moved(other, stable)


def test_one_that_takes_over_begins_with_what_is_in_force_and_the_one_before_ends(
    two: TwoVersions, client: Client
) -> None:
    two.set("2")
    moved(client, "2")
    two.start("-sf", str(two.processes[0].pid), name="one")
    assert two.processes[0].wait(20) == 0, "the old one ends, though its script asks the front"
    fresh = two.client()
    eventually(fresh.is_answered, bool)
    assert {fresh.version() for _ in range(20)} == {"2"}
    two.set("1")
    moved(fresh, "1")


def test_a_killed_haproxy_begins_with_the_last_routes_even_if_the_front_is_gone(
    two: TwoVersions, client: Client
) -> None:
    two.set("2")
    eventually(two.table, lambda text: "ranker@2|ranker@2" in text)
    two.processes[0].send_signal(signal.SIGKILL)
    two.processes[0].wait(20)
    two.close_front()
    two.start()
    fresh = two.client()
    eventually(fresh.is_answered, bool)
    assert {fresh.version() for _ in range(20)} == {"2"}


def test_before_the_log_was_read_no_version_is_guessed(two: TwoVersions) -> None:
    two.start()
    client = two.client()
    eventually(lambda: answers(client, "/v2/models/alone/infer"), lambda status: status == 200)
    status, answer = client.ask()
    assert (status, "not known yet" in answer["error"]) == (503, True)
    assert client.ask("/v2/models/ranker/versions/2/infer")[1]["model_version"] == "2"
    with pytest.raises(InferenceServerException, match="not known yet"):
        over_grpc(two.grpc_port)
    two.know()
    eventually(client.is_answered, bool)


def answers(client: Client, path: str) -> int:
    try:
        return client.ask(path)[0]
    except OSError:
        client.close()
        return 0


def test_the_routes_of_another_server_are_forgotten(two: TwoVersions, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / TABLE).write_text("# another\nranker ranker@2|ranker@2|0\n# end\n")
    two.start()
    eventually(lambda: "ranker@2" in (folder / TABLE).read_text(), lambda there: not there)


def test_a_candidate_without_a_replica_gets_no_requests(two: TwoVersions, client: Client) -> None:
    two.set("1", "2", 10_000)
    moved(client, "2")
    two.end_replicas("ranker@2")
    # Until HAProxy's next health check, requests are refused.
    eventually(client.ask, lambda found: found[1].get("model_version") == "1")
    status, answer = client.ask("/v2/models/ranker/versions/2/infer")
    assert (status, "try again" in answer["error"]) == (503, True)


def test_questions_about_routes_reach_the_front(two: TwoVersions, client: Client) -> None:
    status, answer = client.ask("/v2/models/ranker/route")
    assert (status, answer["error"]) == (400, "inputs: is unknown; there are: stable, candidate, share, why, by")


@pytest.mark.chaos
def test_five_percent_of_twenty_thousand_requests_are_five_percent(two: TwoVersions, client: Client) -> None:
    route = two.set("1", "2", 500)
    eventually(two.table, lambda text: "|500" in text)
    keys = [f"somebody-{number}" for number in range(20_000)]
    found = [client.version(x_routing_key=key) for key in keys]
    assert found == [route.chosen(key) for key in keys]
    assert abs(found.count("2") - 1000) < 4 * sqrt(20_000 * 0.05 * 0.95)


def test_the_configuration_of_a_server_with_one_version_per_model_has_one_rule_more(two: TwoVersions) -> None:
    from serving.cluster.haproxy.routing import routed_by_version

    lines = [line for line in two.config.splitlines() if "ranker" not in line]
    before = "\n".join(lines) + "\n"
    after = routed_by_version(before, "/a/map", "/a/lua").splitlines()
    assert [line for line in after if line not in lines] == [
        "    use_backend http-front if { path,field(5,/) -m str route release }"
    ]
    assert routed_by_version("\n".join(after) + "\n", "/a/map", "/a/lua").splitlines() == after


def test_haproxy_accepts_the_rules(two: TwoVersions) -> None:
    assert two.start("-c").wait(20) == 0
    said = two.said()
    unexpected = [
        line for line in said.splitlines() if "[WARNING]" in line and "always ignored by the http" not in line
    ]
    assert not unexpected
