"""The one change to HAProxy's configuration, and everything that must not be touched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.cluster.haproxy.command import REAL_BINARY, keys
from serving.cluster.haproxy.editing import (
    FRONT_BACKEND,
    MARK,
    PEER_HEADER,
    Unexpected,
    edited,
    explained_by_the_front,
    guarded,
    listening,
    private,
    routed_by_model,
    without_waiting,
)
from serving.cluster.haproxy.errors import with_clear_errors
from serving.cluster.haproxy.intake import SCRIPT, bounded

CONFIG = """\
global
    log stdout
defaults
    mode http
    timeout client 3600s
frontend http_frontend
    bind 127.0.0.1:8000
    default_backend default_backend
frontend grpc_frontend
    # gRPC requires HTTP/2.
    bind 0.0.0.0:8001 proto h2
    mode http
    log global

    acl is_grpc-front req.hdr(application) -m str front
    use_backend grpc-front if is_grpc-front
    acl is_grpc-noop req.hdr(application) -m str noop
    use_backend grpc-noop if is_grpc-noop
    default_backend default_grpc_backend
backend default_grpc_backend
    mode http
backend grpc-front
    mode http
    server f1 127.0.0.1:40000 proto h2 check
backend grpc-noop
    mode http
    server n1 127.0.0.1:40001 proto h2 check observe layer4
    server fallback 127.0.0.1:9500 proto h2 check backup
listen stats
  bind *:8404
"""
ENDED = "http-error status 502 hdr content-type application/grpc "
FAST = """\
    use-server n1 if { path_beg /grpc.reflection. }
    server n1-fast 127.0.0.1:41501 proto h2 check observe layer4
    server n1 127.0.0.1:40001 proto h2 check observe layer4 backup
    server fallback 127.0.0.1:9500 proto h2 check backup
"""


FRONTS = """\
    use-server f1 if { path_beg /grpc.reflection. }
    server f1-fast 127.0.0.1:41500 proto h2 check
    server f1 127.0.0.1:40000 proto h2 check backup
"""


def test_routing_changes_only_the_grpc_frontend_and_the_servers() -> None:
    before, after = CONFIG.splitlines(), routed_by_model(CONFIG).splitlines()
    added = [line for line in after if line not in before]
    assert [line for line in before if line not in after] == [
        "    default_backend default_grpc_backend",
        "    server f1 127.0.0.1:40000 proto h2 check",
        "    server n1 127.0.0.1:40001 proto h2 check observe layer4",
    ]
    assert FAST in routed_by_model(CONFIG)
    assert FRONTS in routed_by_model(CONFIG)
    assert after.count(f"    default_backend {FRONT_BACKEND}") == 1
    assert after.index(added[0]) == after.index("    mode http", after.index("frontend grpc_frontend")) + 1
    assert MARK in added[0]


def test_only_our_own_user_reaches_the_admin_socket_and_nobody_the_pages_of_statistics() -> None:
    pages = (
        "frontend prometheus\n    bind :9101\n    mode http\n"
        "    http-request use-service prometheus-exporter if { path /metrics }\n    no log\n"
    )
    config = CONFIG.replace(
        "    log stdout\n", "    log stdout\n    stats socket /a/admin.sock mode 666 level admin expose-fd listeners\n"
    ).replace("frontend http_frontend\n", f"{pages}frontend http_frontend\n")
    changed = edited(config)
    assert "    stats socket /a/admin.sock mode 600 level admin expose-fd listeners\n" in changed
    for gone in ("666", "9101", "8404", "prometheus", "listen stats"):
        assert gone not in changed
    assert "frontend http_frontend\n" in changed
    assert changed == edited(CONFIG).replace(
        "    log stdout\n", "    log stdout\n    stats socket /a/admin.sock mode 600 level admin expose-fd listeners\n"
    )


@pytest.mark.parametrize(
    ("host", "bound"),
    [
        ("::1", "::1:{port}"),
        ("::", ":::{port} v4v6"),
        ("0.0.0.0", "0.0.0.0:{port}"),
        ("10.0.0.7", "10.0.0.7:{port}"),
        ("models.local", "models.local:{port}"),
    ],
)
def test_haproxy_listens_where_the_settings_say_and_not_where_ray_does(host: str, bound: str) -> None:
    config = CONFIG.replace("bind 0.0.0.0:8001", "bind *:8001")
    changed = listening(edited(config), host)
    for port, more in ((8000, ""), (8001, " proto h2")):
        assert f"    bind {bound.format(port=port)}{more}\n" in changed
    assert listening(changed, "") == changed
    assert changed.count("127.0.0.1:4000") == edited(config).count("127.0.0.1:4000")


def test_editing_twice_is_editing_once() -> None:
    assert edited(edited(CONFIG)) == edited(CONFIG)


def test_slow_heads_end_and_haproxy_says_who_asks_for_more_than_inference() -> None:
    lines = [line.strip() for line in guarded(CONFIG).splitlines()]
    defaults = lines[lines.index("defaults") : lines.index("timeout client 3600s")]
    assert defaults[-2:] == ["timeout http-request 10s", "option dontlog-normal"]
    frontend = lines[lines.index("frontend http_frontend") : lines.index("frontend grpc_frontend")]
    assert frontend[3] == 'http-request set-header x-headway-began "${HEADWAY_AGE_KEY}-%[date(0,us)]"'
    told = f'http-request set-header {PEER_HEADER} "${{HEADWAY_PEER_KEY}}-%[src]" unless {{ path_end -i infer }}'
    assert told in frontend
    assert "http-request del-header upgrade" in frontend
    over_grpc = [line.strip() for line in edited(CONFIG).splitlines()]
    assert told in over_grpc[over_grpc.index("frontend grpc_frontend") :]


def test_the_file_holds_no_key_and_haproxys_environment_does() -> None:
    config = bounded(edited(CONFIG + "backend http-noop\n    server n1 127.0.0.1:40001\n"), "headway-intake.lua")
    for name, value in keys().items():
        assert f"${{{name}}}" in config
        assert value not in config
        assert len(value) == 16


def test_only_a_model_that_may_sleep_has_its_requests_wait_for_a_replica() -> None:
    def waiting(config: str) -> dict[str, str]:
        """The line of Ray's proxy, by backend."""
        backends = (section.splitlines() for section in config.split("\nbackend ")[1:])
        return {lines[0]: lines[-1].strip() for lines in backends if "fallback" in lines[-1]}

    server = "server fallback 127.0.0.1:8500 check backup"
    backends = "".join(
        f"backend http-{model}\n    server r1 127.0.0.1:30001 check\n    {server}\n" for model in ("noop", "sleeper")
    )
    config = f"defaults\n    timeout connect 5s\n{backends}"
    changed = without_waiting(config, ["sleeper"])
    assert waiting(changed) == {"http-noop": f"{server} disabled", "http-sleeper": server}
    assert "    timeout connect 300ms\n    timeout check 2s\n" in changed
    over_grpc = edited(CONFIG, ["sleeper"])
    assert over_grpc == edited(CONFIG)
    assert "server fallback 127.0.0.1:9500 proto h2 check backup disabled\n" in over_grpc
    assert "server n1 127.0.0.1:40001 proto h2 check observe layer4 backup\n" in over_grpc


def test_a_model_without_a_replica_is_the_fronts_to_explain_unless_it_sleeps_or_there_is_no_front() -> None:
    uses = {
        model: f"    use_backend http-{model} if is_http-{model}\n" for model in ("noop", "gone", "sleeper", "front")
    }
    fallback = "    server fallback 127.0.0.1:8500 check backup\n"
    replica = "    server r1 127.0.0.1:30001 check observe layer4\n"
    config = "".join(uses.values()) + f"backend http-gone\n{fallback}backend http-sleeper\n{fallback}"
    config += f"backend http-noop\n{replica}{fallback}backend http-front\n"
    assert explained_by_the_front(config + replica, ["sleeper"]) == (config + replica).replace(uses["gone"], "")
    assert explained_by_the_front(config + fallback, ["sleeper"]) == config + fallback


@pytest.mark.parametrize("folder", ["/a", "/tmp/headway-0/haproxy/a"])  # the second is the one of a `headway serve`
def test_its_own_errors_are_what_they_are_and_say_so_in_json(tmp_path: Path, folder: str) -> None:
    config = CONFIG.replace(
        "    timeout client 3600s\n", f"    errorfile 502 {folder}/500.http\n    errorfile 503 {folder}/500.http\n"
    )
    changed = with_clear_errors(config, tmp_path)
    assert with_clear_errors(changed, tmp_path) == changed
    assert f"{folder}/500.http" not in changed
    assert f"    errorfile 503 {tmp_path}/headway-503.http\n" in changed
    head, _, body = (tmp_path / "headway-503.http").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 1\r\n" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert "try again" in json.loads(body)["error"]


def test_grpcs_calls_are_told_the_same_in_its_own_words(tmp_path: Path) -> None:
    changed = with_clear_errors(edited(CONFIG), tmp_path)
    assert with_clear_errors(changed, tmp_path) == changed
    backend = changed[changed.index("backend grpc-noop\n") :].splitlines()
    assert [*backend[1:3], backend[3][: 4 + len(ENDED)]] == [
        *(f"    errorfile {status} {tmp_path}/headway-grpc-{status}.http" for status in (503, 504)),
        f"    {ENDED}",
    ]
    told = (tmp_path / "headway-grpc-503.http").read_text()
    assert "grpc-status: 14" in told
    assert "grpc-message: no replica of this model can be reached at the moment; try again" in told


def test_before_the_applications_are_known_the_answer_is_not_that_there_are_none() -> None:
    unknown = 'backend default_backend\n    http-request return status 404 content-type text/plain lf-string "no"\n'
    changed = guarded(CONFIG + unknown)
    assert "status 404" not in changed
    assert "http-request return status 503" in changed


def test_the_first_request_of_a_client_rides_on_no_connection_that_may_be_dead() -> None:
    assert "    http-reuse safe\n" in guarded(CONFIG + "backend http-noop\n    http-reuse always\n")


@pytest.mark.parametrize("line", ["defaults\n", "frontend http_frontend\n"])
def test_a_configuration_without_the_known_sections_is_refused(line: str) -> None:
    with pytest.raises(Unexpected, match="that look as expected"):
        guarded(CONFIG.replace(line, "other\n"))


def test_without_grpc_or_a_front_nothing_is_routed() -> None:
    without_grpc = CONFIG.replace("grpc_frontend", "another")
    without_front = CONFIG.replace("backend grpc-front\n", "backend grpc-other\n")
    assert (routed_by_model(without_grpc), routed_by_model(without_front)) == (without_grpc, without_front)


@pytest.mark.parametrize("line", ["    bind 0.0.0.0:8001 proto h2\n", "    default_backend default_grpc_backend\n"])
def test_a_frontend_that_looks_different_is_refused_and_not_guessed_at(line: str) -> None:
    with pytest.raises(Unexpected, match="frontend grpc_frontend has"):
        edited(CONFIG.replace(line, ""))


@pytest.mark.parametrize(
    ("config", "expected", "said"),
    [
        (CONFIG, edited(CONFIG), ""),
        (CONFIG.replace(" proto h2", ""), CONFIG.replace(" proto h2", ""), "need the metadata `application`"),
    ],
)
def test_the_command_becomes_haproxy_whatever_it_finds(tmp_path: Path, config: str, expected: str, said: str) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(config)
    command = [sys.executable, "-m", "serving.cluster.haproxy.command", "-db", "-f", str(path), "-dR"]
    environment = {REAL_BINARY: "/bin/echo", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"-db -f {path} -dR\n"
    script = tmp_path / SCRIPT
    assert path.read_text() == (expected if said else with_clear_errors(bounded(expected, str(script)), tmp_path))
    assert script.exists() == (not said)
    assert said in done.stderr


def test_the_list_of_applications_is_hidden_where_callers_need_a_credential() -> None:
    hidden = private(edited(CONFIG))
    head = hidden.partition("frontend http_frontend\n")[2].splitlines()[:3]
    assert head[0] == "    bind 127.0.0.1:8000"
    assert head[2].endswith("if { path -i /-/routes }"), "before any rule of Ray's"
    assert private(hidden) == hidden
