"""A server that speaks S3, for tests that ask for its fixtures: moto's. Where it is not installed, they are skipped."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.patience import eventually
from tests.ports import free_port

PLACE = "s3://headway-test/a"
STARTS_S = 60


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that speaks S3."""
    command = shutil.which("moto_server")
    if command is None:
        pytest.skip("no moto_server on the path: pip install 'moto[s3,server]'")
    port = free_port()
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    server = subprocess.Popen([command, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(url), patience_s=STARTS_S)
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


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in a bucket, with credentials in the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": moto,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return f"{PLACE}-{os.urandom(4).hex()}"
