"""Tests that few tenants become time series even if clients make up many, among them those that matter."""

from serving.telemetry.tenants import MOST_NAMES, OTHER, TenantTable


def test_the_first_tenants_are_counted_under_their_names() -> None:
    table = TenantTable()
    table.charge("acme", 5.0)
    table.count("acme", 3)
    table.count("", 2)
    counts_by_name = table.snapshot()
    assert {name: counts.requests for name, counts in counts_by_name.items()} == {"acme": 3, "none": 2}
    assert counts_by_name["acme"].device_ns == 5.0


def test_made_up_tenants_are_counted_together_and_bounded() -> None:
    table = TenantTable()
    for number in range(5000):
        table.count(f"made-up-{number}", 1)
    counts_by_name = table.snapshot()
    assert len(counts_by_name) <= MOST_NAMES + 2
    assert sum(counts.requests for counts in counts_by_name.values()) == 5000
    assert counts_by_name[OTHER].requests > 4900


def test_a_tenant_of_the_settings_or_with_much_traffic_is_named_beside_many_made_up_ones() -> None:
    table = TenantTable(["gold"])
    for number in range(3000):
        table.count(f"made-up-{number}", 1)
    for _ in range(40):
        table.count("busy", 10)
    table.count("gold", 1)
    counts_by_name = table.snapshot()
    assert counts_by_name["gold"].requests == 1
    assert counts_by_name["busy"].requests > 200


def test_no_count_ever_falls() -> None:
    table = TenantTable()
    before: dict[str, int] = {}
    for number in range(2000):
        table.count(f"t{number % 97}", 1 + number % 13)
        now = {name: counts.requests for name, counts in table.snapshot().items()}
        assert all(now[name] >= count for name, count in before.items())
        before = now


def test_a_long_name_is_cut() -> None:
    table = TenantTable()
    table.count("x" * 5000, 1)
    table.count("x" * 5000, 1)
    assert table.snapshot()["x" * 64].requests == 2
