"""The environment variables that let a Ray of `headway serve` rest without requests, each with what is lost by it.

They are for a Ray that runs on this machine only, without Ray's dashboard, and ends with its server. A cluster's Ray
serves others too and keeps its own: its metrics are collected, and its logs are read by other drivers. A variable that
the user has set stays as it is, so whoever misses something sets the default that is named here.
docs/benchmarks/at-rest.md has the measurements. Checked against Ray 2.60.
"""

from collections.abc import Mapping

_OURS = {
    # Ray's log monitor looks for new log files and reads all of them ten times a second (a LOG_NAME_UPDATE_INTERVAL_S
    # of 0.5, a threshold of 1000), to send new lines to drivers. The driver of `headway serve` does not ask for them.
    # Lost: another driver that connects to this Ray does not see what its tasks print. The files are complete.
    "LOG_NAME_UPDATE_INTERVAL_S": "86400",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    # Every process of Ray hands its own metrics to Ray's agent, which collects them (default: true) for the dashboard,
    # and for a Prometheus that knows the port, which is another one at every start. `/metrics` is Headway's own.
    # Lost: Ray's metrics `ray_…`.
    "RAY_enable_metrics_collection": "0",
    # Every 5 s the agent reads CPU, memory and files of all processes for the dashboard and for those metrics.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    # Every 2 s it looks for files of events for the dashboard; every 5 s the dashboard's process measures itself.
    "SCAN_EVENT_DIR_INTERVAL_SECONDS": "60",
    "METRICS_RECORD_INTERVAL_S": "60",
    # Ray times each of its own callbacks (default: true), of which a process at rest has a hundred a second.
    # Lost: the table of these times in Ray's `debug_state.txt`.
    "RAY_event_stats": "0",
    # Every process hands its events of tasks on each second. Lost: `ray list tasks` is ten seconds behind.
    "RAY_task_events_report_interval_ms": "10000",
    # Ray looks four times a second whether the machine's memory is used up, and ten times whether its disk is full.
    # Lost: it notices within a second.
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "1000",
}


def resting_environment(present: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that are not set yet. present: the environment."""
    return {name: value for name, value in _OURS.items() if name not in present}
