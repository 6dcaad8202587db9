"""Tests when an application is up: Ray's status is RUNNING, and every running replica has answered from outside."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from types import SimpleNamespace

import pytest

from models.loading import ModelNotLoadable
from models.pytorch.checking import SpecMismatch
from serving.cluster.probes import NeverUp, expected, hears, replacing, short_cause


def application(status: str, message: str = "", **states: int) -> SimpleNamespace:
    deployment = SimpleNamespace(replica_states=states, message=message)
    return SimpleNamespace(status=status, message="see the deployment", deployments={"ModelReplica": deployment})


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (None, 0),
        (application("DEPLOYING", RUNNING=1, STARTING=1), 0),
        (application("RUNNING", RUNNING=2), 2),
        (application("RUNNING", RUNNING=2, STOPPING=1), 2),
        (application("RUNNING"), 1),
    ],
)
def test_as_many_replicas_have_to_be_heard_as_run_and_one_of_a_model_that_sleeps(
    found: SimpleNamespace | None, count: int
) -> None:
    assert expected(found) == count


@pytest.mark.parametrize("status", ["DEPLOY_FAILED", "UNHEALTHY"])
def test_an_application_that_will_never_be_up_raises_the_reason(status: str) -> None:
    with pytest.raises(NeverUp, match="the weights are gone"):
        expected(application(status, "the weights are gone"))
    with pytest.raises(NeverUp, match="see the deployment"):
        expected(application(status))


@pytest.mark.parametrize("kind", [SpecMismatch, ModelNotLoadable])
def test_an_error_of_the_models_owner_is_shown_without_rays_traceback(kind: type[Exception]) -> None:
    trace = "Failed 3 times. Error:\nTraceback (most recent call last):\n  File ...\n"
    with pytest.raises(NeverUp) as caught:
        expected(
            application(
                "DEPLOY_FAILED", f"{trace}{kind.__module__}.{kind.__name__}: output 'y' is missing; there are: z\n"
            )
        )
    assert str(caught.value) == "output 'y' is missing; there are: z"
    with pytest.raises(NeverUp, match="Traceback"):
        expected(application("DEPLOY_FAILED", f"{trace}RuntimeError: no weights"))


def detailed(status: str, wanted: int, **replicas: str) -> SimpleNamespace:
    """Returns an application as in Serve's details. replicas: state by id."""
    told = [SimpleNamespace(replica_id=id, state=state) for id, state in replicas.items()]
    deployment = SimpleNamespace(replicas=told, target_num_replicas=wanted, message="Error:\nOSError: gone\n")
    return SimpleNamespace(status=status, message="", deployments={"ModelReplica": deployment})


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (None, 0),
        (detailed("RUNNING", 2, a="RUNNING", b="RUNNING"), 0),  # not begun
        (detailed("DEPLOYING", 2, a="RUNNING", b="STOPPING", c="RUNNING", d="STARTING"), 0),
        (detailed("DEPLOYING", 2, a="STOPPING", b="STOPPING", c="RUNNING", d="RUNNING"), 2),
        (detailed("DELETING", 0, a="STOPPING"), 0),
        (detailed("RUNNING", 0), 1),  # it is scaled to zero; a request has to start it
    ],
)
def test_an_update_is_done_when_as_many_new_replicas_run_as_are_wanted(
    found: SimpleNamespace | None, count: int
) -> None:
    assert replacing(found, {"a", "b"}) == count


def test_an_update_that_failed_says_so_though_the_old_replicas_run() -> None:
    failed = detailed("DEPLOY_FAILED", 2, a="RUNNING", b="RUNNING")
    with pytest.raises(NeverUp, match="gone"):
        replacing(failed, {"a", "b"})
    assert short_cause(failed) == "OSError: gone"


@contextmanager
def balancer(*replicas: str) -> Iterator[str]:
    """A server that answers for these replicas in turn."""
    turn = cycle(replicas)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v2/models/slow/config"
            content = json.dumps({"parameters": {"replica": {"string_value": next(turn)}}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_replica_that_the_balancer_does_not_know_yet_is_not_heard() -> None:
    with balancer("slow#a", "slow#b") as both, balancer("slow#a") as one:
        assert hears(both, "/v2/models/slow", 2)
        assert not hears(one, "/v2/models/slow", 2)
        assert hears(one, "/v2/models/slow", 1)
        assert not hears(both, "/v2/models/slow", 1, but_not={"slow#b"}), "a replaced one still answers"
        assert hears(one, "/v2/models/slow", 1, but_not={"slow#b"})
    assert not hears(one, "/v2/models/slow", 1), "nobody is there any more"
