"""Tests that the variables which let Ray rest leave alone what the user has set."""

from serving.cluster.resting import resting_environment


def test_what_the_user_has_set_stays() -> None:
    everything = resting_environment({})
    assert everything["RAY_enable_metrics_collection"] == "0"
    rest = resting_environment({"RAY_enable_metrics_collection": "1", "PATH": "/bin"})
    assert rest == {name: value for name, value in everything.items() if name != "RAY_enable_metrics_collection"}
