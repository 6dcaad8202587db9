"""Tests the alerts: each has test cases, a page in the documentation and existing metrics, and reaches its receiver."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from serving.telemetry import metrics
from tests.deploy.conftest import PROMETHEUS, ROOT, TOOLS, Stub, running, tool
from tests.patience import eventually
from tests.ports import free_port

RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
CASES = ("rules_test.yml", "rules_days_test.yml")  # promtool needs larger steps for rules over days
SUFFIXES = ("", "_bucket", "_sum", "_count")
KNOWN = {
    metrics.full_name(metric) + suffix for metric in (*metrics.OF_REPLICA, *metrics.OF_MODEL) for suffix in SUFFIXES
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def unknown_metrics(expression: str) -> set[str]:
    """Returns the names in the expression that are neither in the table of metrics nor a recording rule."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return {name for name in re.findall(r"[a-z_:0-9]*headway_[a-z_:0-9]+", expression) if name not in KNOWN | recorded}


def test_rules_speak_of_metrics_that_exist() -> None:
    for rule in rules():
        assert not unknown_metrics(rule["expr"]), rule


def test_every_alert_has_a_severity_that_is_routed_a_case_and_a_page() -> None:
    tests = [test for name in CASES for test in yaml.safe_load((PROMETHEUS / name).read_text())["tests"]]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
    headings = {line.removeprefix("## ").lower() for line in (ROOT / "docs" / "alerts.md").read_text().splitlines()}
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "ticket", "info", "none"), rule
            assert rule["alert"] in fired, f"{rule['alert']} never fires in {CASES}"
            runbook = rule["annotations"].get("runbook", "docs/alerts.md#headwaywatchdog")
            assert runbook.partition("#")[2] in headings, runbook


def test_the_rules_do_in_promtool_what_their_cases_say() -> None:
    promtool = tool("promtool")
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", *CASES]):
        done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def post_alerts(port: int, *alerts: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v2/alerts",
        json.dumps(alerts).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200


def alert(name: str, severity: str, **more: Any) -> dict[str, Any]:
    labels = {"alertname": name, "severity": severity, "model": "scorer"}
    texts = {"summary": f"{name} on scorer", "description": "why", "runbook": "docs/alerts.md"}
    return {"labels": labels, "annotations": texts, **more}


def configured(folder: Path, stub: str) -> Path:
    """Returns our Alertmanager configuration with short waits, this test's secrets, and PagerDuty and Slack at
    `stub`."""
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    (folder / "key").write_text("the-integration-key")
    (folder / "webhook").write_text(f"http://{stub}/slack")
    config["global"] |= {"slack_api_url_file": str(folder / "webhook"), "pagerduty_url": f"http://{stub}/enqueue"}
    config["route"] |= {"group_wait": "10ms", "group_interval": "200ms"}
    for receiver in config["receivers"]:
        for pagerduty in receiver.get("pagerduty_configs", ()):
            pagerduty["routing_key_file"] = str(folder / "key")
    for template in (TOOLS.parent / "share" / "prometheus" / "alertmanager").glob("*.tmpl"):
        shutil.copy(template, folder)  # see fetch.sh
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_page_reaches_pagerduty_and_slack_a_ticket_slack_and_the_watchdog_nobody(tmp_path: Path) -> None:
    alertmanager = tool("alertmanager", "prometheus-alertmanager")
    port = free_port()
    with Stub() as stub:
        command = [
            alertmanager,
            f"--config.file={configured(tmp_path, stub.address)}",
            f"--storage.path={tmp_path}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]

        def told(path: str, name: str) -> list[Any]:
            return [json.loads(body) for where, body in list(stub.posted) if where == path and name.encode() in body]

        def soon(look: Callable[[], list[Any]]) -> list[Any]:
            return eventually(look, beside=lambda: stub.posted)

        with running(command, f"http://127.0.0.1:{port}/-/ready", tmp_path / "log"):
            down = alert("HeadwayModelDown", "page")
            post_alerts(port, alert("HeadwayWatchdog", "none"), alert("HeadwayGpuSaturated", "ticket"), down)
            (event,) = soon(lambda: told("/enqueue", "HeadwayModelDown"))
            (message,) = soon(lambda: told("/slack", "HeadwayModelDown"))
            soon(lambda: told("/slack", "HeadwayGpuSaturated"))
            post_alerts(port, down | {"endsAt": "2020-01-01T00:00:00Z", "startsAt": "2019-12-31T00:00:00Z"})
            soon(lambda: [one for one in told("/enqueue", "scorer") if one["event_action"] == "resolve"])
    assert event["routing_key"] == "the-integration-key"
    assert event["event_action"] == "trigger"
    assert event["payload"]["severity"] == "critical"
    assert event["payload"]["summary"] == "HeadwayModelDown on scorer"
    assert event["payload"]["custom_details"]["runbook"] == "docs/alerts.md"
    assert message["channel"] == "#headway"
    assert "HeadwayModelDown on scorer" in message["attachments"][0]["text"]
    assert not told("/enqueue", "HeadwayGpuSaturated")
    assert not [body for _, body in stub.posted if b"Watchdog" in body]


def test_alertmanagers_configuration_is_valid() -> None:
    done = subprocess.run(
        [tool("amtool"), "check-config", str(PROMETHEUS / "alertmanager.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
