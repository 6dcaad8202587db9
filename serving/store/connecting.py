"""Connects to Redis: one server, a master that Sentinels name, or a Redis Cluster; with TLS, user and password."""

import asyncio
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff
    from redis.credentials import CredentialProvider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"Redis needs its client: {error}; pip install 'headway[redis]'") from error

SENTINEL_PORT = 26379
Client = Redis | RedisCluster


class Kind(Enum):
    """The servers at the address: a server, Sentinels that know the master, or any node of a cluster."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The place of Redis, and our credentials.

    url: `redis://host:port/database`, `rediss://` with TLS, `unix:///path`. Sentinels may be several:
        `redis://one,two:26380/0`. master: the name by which Sentinels know the master.
    username, password_file: the file is read whenever a connection is made, so that a new password needs no restart.
    ca_file: certificates that are trusted instead of those of the system. cert_file, key_file: our own.
    """

    url: str
    kind: Kind = Kind.SERVER
    master: str = ""
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class FileCredentials(CredentialProvider):
    """Reads the password from its file for every new connection."""

    def __init__(self, username: str | None, file: Path) -> None:
        self._username = username
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._file.read_text().strip()
        return (password,) if self._username is None else (self._username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return await asyncio.to_thread(self.get_credentials)


def connect(address: Address, limit_s: float, *, is_bounded: bool = False) -> Client:
    """Returns a client that connects when it is first used.

    limit_s: for each wait for the server. is_bounded: whoever calls bounds the time of every call, so that the client
        need not: its own limits cost a look-up more than the rest of it."""
    options: dict[str, Any] = {
        "socket_timeout": None if is_bounded else limit_s,
        "socket_connect_timeout": limit_s,
        "retry": Retry(NoBackoff(), 0),  # whoever calls has a breaker
    }
    if address.password_file is not None:
        options["credential_provider"] = FileCredentials(address.username, address.password_file)
    parts = urlsplit(address.url)
    if parts.scheme == "rediss":
        files = {"ssl_ca_certs": address.ca_file, "ssl_certfile": address.cert_file, "ssl_keyfile": address.key_file}
        options |= {name: str(file) for name, file in files.items() if file is not None}
    match address.kind:
        case Kind.SERVER:
            return Redis.from_url(address.url, **options)
        case Kind.CLUSTER:
            return RedisCluster.from_url(address.url, **options)
        case Kind.SENTINEL:
            options |= {"db": int(parts.path.strip("/") or 0), "ssl": parts.scheme == "rediss"}
            hosts = [_host(text) for text in parts.netloc.split(",")]
            master: Client = Sentinel(hosts, **options).master_for(address.master)  # type: ignore[no-untyped-call]
            return master


def is_cluster(client: Client) -> bool:
    """Returns whether keys are on several nodes, so that most commands take only one of them."""
    return isinstance(client, RedisCluster)


async def disconnect(client: Client) -> None:
    """Closes the client, and the connections by which it has asked Sentinels for the master."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


def _host(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon else (text, SENTINEL_PORT)
