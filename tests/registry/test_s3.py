"""Tests the registry on S3: many writers, files of several parts, and a bucket that is away. Needs moto's server."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving.registry.changes import AlreadyRegistered, Refused, approval
from serving.registry.copies import Copies
from serving.registry.log import ModelLog, models_of
from serving.registry.state import fold
from serving.store.files import PIECE_BYTES, open_files
from serving.store.objects import AlreadyExists, NoSuchObject, ObjectTooLarge, StoreUnreachable
from tests.patience import until
from tests.registry.artifacts import FILES, artifact, pushed
from tests.registry.stories import author

PLACE = "s3://headway-test/registry"
STARTS_S = 60


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that speaks S3."""
    command = shutil.which("moto_server")
    if command is None:
        pytest.skip("no moto_server on the path: pip install 'moto[s3,server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    server = subprocess.Popen([command, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(url), patience_s=STARTS_S)
        httpx.put(f"{url}/headway-test", headers={"x-amz-acl": "private"}).raise_for_status()
        yield url
    finally:
        server.terminate()
        server.wait()
        log.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
