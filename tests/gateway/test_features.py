"""Tests the feature store as callers see it: what is pushed is read, mistakes lose nothing, policies cover outages."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.api.faults import CallFailed, Fault
from serving.features.offline.spool import Spool
from serving.features.reading import Found
from serving.features.rows import BadField, Row
from serving.features.views import Feature, FeatureView, FeatureViews, Missing
from serving.store.connecting import Address, connect
from serving.store.features import FeatureStore, RedisFeatureStore, Wanted, Write
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from tests.gateway.feature_stores import online_features
from tests.store.conftest import PATIENT_S, fresh_keys, valkey  # noqa: F401

NOW = "2026-11-29T12:00:00Z"
NOW_NS = 1_795_953_600 * 10**9
HOUR_NS = 3600 * 10**9
VIEWS = FeatureViews.of(
    [
        FeatureView(
            name="user_stats",
            entity="user",
            key="user_id",
            features=(
                Feature(name="age", datatype="INT64"),
                Feature(name="country", datatype="BYTES", missing=Missing.DEFAULT, default="??"),
                Feature(name="spend", datatype="FP32", ttl_s=3600, missing=Missing.LAST_KNOWN, default=0.0),
            ),
        ),
        FeatureView(name="shops", entity="shop", key="shop_id", features=(Feature(name="open", datatype="BOOL"),)),
    ]
)


class Fails:
    """A store that fails after some calls. calls: how many were made."""

    def __init__(self, store: FeatureStore, after: int = 0) -> None:
        self._store = store
        self._after = after
        self.calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls > self._after:
            raise ConnectionError("told to fail")

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        self._count()
        return await self._store.read(wanted)

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        self._count()
        return await self._store.write(writes)

    async def close(self) -> None:
        await self._store.close()


class Served:
    """The feature store with a loop and a clock of its own."""

    def __init__(
        self, store: FeatureStore | None = None, views: FeatureViews = VIEWS, spool: Spool | None = None
    ) -> None:
        self.clock = ManualClock(NOW_NS)
        self.store = store or MemoryFeatureStore(self.clock)
        self.runner = asyncio.Runner()
        self.features = online_features(views, self.store, calendar=self.clock, spool=spool)

    def push(self, *rows: object, view: str = "user_stats", tenant: str = "acme") -> Any:
        return self.runner.run(self.features.push(tenant, view, {"rows": list(rows)}))

    def get(self, *ids: object, view: str = "user_stats", tenant: str = "acme", **more: object) -> Any:
        return self.runner.run(self.features.get(tenant, view, {"ids": list(ids), **more}))

    def refusal(self, call: str, *given: object, **more: Any) -> Fault:
        with pytest.raises(CallFailed) as failed:
            getattr(self, call)(*given, **more)
        return failed.value.fault


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.runner.run(made.features.close())
    made.runner.close()


def row(id: object = "u7", at: object = NOW, **values: object) -> dict[str, object]:
    return {"user_id": id, "event_ts": at, **values}


def test_what_is_pushed_is_read_in_columns(served: Served) -> None:
    pushed = served.push(row("u7", age=41, country="DE", spend=2), row(8, age=33))
    assert pushed == {"written": 4, "superseded": 0}
    assert served.get("u7", "8") == {
        "view": "user_stats",
        "ids": ["u7", "8"],
        "features": {"age": [41, 33], "country": ["DE", "??"], "spend": [2.0, 0.0]},
    }


def test_reasons_and_ages_come_if_asked_for(served: Served) -> None:
    served.push(row(age=41, spend=2.5))
    served.clock.advance(2 * HOUR_NS)
    told = served.get("u7", features=["spend", "country", "age"], reasons=True)
    assert told["features"] == {"spend": [2.5], "country": ["??"], "age": [41]}
    assert told["reasons"] == {"spend": ["expired"], "country": ["missing"], "age": ["present"]}
    assert told["ages_s"] == {"spend": [7200.0], "country": [None], "age": [7200.0]}


def test_a_late_row_is_counted_as_superseded_and_changes_nothing(served: Served) -> None:
    served.push(row(age=41))
    assert served.push(row(at="2026-11-29T11:59:59Z", age=40, country="FR")) == {"written": 1, "superseded": 1}
    assert served.get("u7", features=["age", "country"])["features"] == {"age": [41], "country": ["FR"]}


def test_null_ends_a_value(served: Served) -> None:
    served.push(row(country="DE"))
    served.push(row(country=None))
    assert served.get("u7", features=["country"])["features"] == {"country": ["??"]}


def test_a_required_feature_without_a_value_is_an_error_that_names_it(served: Served) -> None:
    served.push(row(age=41))
    fault = served.refusal("get", "u7", "u8", "u9")
    assert (fault.status, fault.text) == (404, "user_stats.age: the value of user 'u8' is not known (and 1 more)")
    served.clock.advance(24 * HOUR_NS)
    assert "of user 'u7'" in served.refusal("get", "u7").text


@pytest.mark.parametrize(
    ("call", "given", "more", "status", "text"),
    [
        ("get", ["u7"], {"view": "nope"}, 404, "there is no feature view 'nope'"),
        ("push", [row(age=1)], {"view": "nope"}, 404, "there is no feature view 'nope'"),
        (
            "get",
            ["u7"],
            {"features": ["age", "size"]},
            400,
            "features[1]: user_stats has no feature 'size'; it has age",
        ),
        ("get", ["u7"], {"features": []}, 400, "features: expected a list of names, got []"),
        ("get", ["u7"], {"features": ["age", "spend", "age"]}, 400, "features: names a feature twice"),
        ("get", ["u7"], {"reasons": 1}, 400, "reasons: expected true or false, got 1"),
        ("get", ["u7"], {"feature": ["age"]}, 400, "feature: unknown; possible here: ids, features, reasons"),
        ("get", [], {}, 400, "ids: is empty"),
        ("get", ["u7", None], {}, 400, "ids[1]: expected the id of an entity, a text or a whole number, got null"),
        ("get", ["u"] * 10_000, {}, 400, "ids: holds 10,000 entries; at most 1,000 are taken in one request"),
        ("push", [row(age=1)] * 10_000, {}, 400, "rows: holds 10,000 entries; at most 1,000 are taken"),
        ("push", [row(age=1), row(age="x")], {}, 400, "rows[1].age: expected a whole number (INT64), got 'x'"),
        ("push", [row(age=1)] * 250 + [row(spend=float("nan"))], {}, 400, "rows[250].spend: nan is not allowed"),
    ],
)
def test_bad_input_is_refused_with_the_field(
    served: Served, call: str, given: list[object], more: dict[str, Any], status: int, text: str
) -> None:
    fault = served.refusal(call, *given, **more)
    assert (fault.status, fault.text[: len(text)]) == (status, text)


def test_of_rows_with_a_mistake_none_is_written(served: Served) -> None:
    served.refusal("push", *[row(f"u{number}", age=1) for number in range(999)], row(age="x"))
    assert served.get("u1", features=["country"], reasons=True)["reasons"] == {"country": ["missing"]}
    assert served.refusal("get", "u1").status == 404


@pytest.mark.parametrize("which", ["memory", "redis"])
def test_no_value_crosses_from_tenant_to_tenant(which: str, request: pytest.FixtureRequest) -> None:
    """Pushes values of tenants with names that could be taken for each other, in every order, and reads all."""
    tenants = ["acme", "acme:user", "", "globex", "{acme}", "acme%3Auser"]
    store = None
    if which == "redis":
        store = RedisFeatureStore(connect(Address(url=request.getfixturevalue("valkey")), PATIENT_S), fresh_keys())
    served = Served(store)
    entities = ["u7", "user:u7", "u7:age", "7"]
    for turn in range(len(tenants)):
        order = tenants[turn:] + tenants[:turn]
        for number, tenant in enumerate(order):
            served.push(*(row(id, country=f"{tenant} {turn} {id}") for id in entities), tenant=tenant)
            for other in order[: number + 1]:
                told = served.get(*entities, features=["country"], tenant=other)["features"]["country"]
                assert told == [f"{other} {turn} {id}" for id in entities]
    served.runner.run(served.features.close())
    served.runner.close()


def test_values_of_another_version_of_the_view_are_not_served() -> None:
    clock = ManualClock(NOW_NS)
    store = MemoryFeatureStore(clock)
    served = Served(store)
    served.push(row(country="DE", age=41))
    second = replace(VIEWS.views["user_stats"], version="2")
    changed = Served(store, FeatureViews.of([second]))
    told = changed.get("u7", features=["country"], reasons=True)
    assert (told["features"], told["reasons"]) == ({"country": ["??"]}, {"country": ["other version"]})
    assert "only known of another version" in changed.refusal("get", "u7").text
    changed.push(row(country="FR"))
    assert changed.get("u7", features=["country"])["features"] == {"country": ["FR"]}
    for one in (served, changed):
        one.runner.close()


def test_while_the_store_is_down_the_policies_answer_and_required_features_are_refused() -> None:
    served = Served(Fails(MemoryFeatureStore(ManualClock(NOW_NS))))
    told = served.get("u7", features=["country", "spend"], reasons=True)
    assert told["features"] == {"country": ["??"], "spend": [0.0]}
    assert told["reasons"] == {"country": ["unavailable"], "spend": ["unavailable"]}
    fault = served.refusal("get", "u7")
    assert (fault.status, fault.text) == (503, "user_stats.age: the feature store does not answer")
    assert dict(fault.headers)[b"retry-after"] == b"1"
    served.runner.close()


def test_a_store_that_fails_in_the_middle_of_a_push_says_how_far_it_came() -> None:
    rows = [row(f"u{number}", age=number) for number in range(600)]
    store = MemoryFeatureStore(ManualClock(NOW_NS))
    served = Served(Fails(store, after=1))
    fault = served.refusal("push", *rows)
    assert fault.status == 503
    assert fault.text == (
        "the feature store does not answer (told to fail); 250 of 600 values were written: push the rows again"
    )
    again = Served(store)
    assert again.push(*rows) == {"written": 600, "superseded": 0}
    for one in (served, again):
        one.runner.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "state" / "features", ManualClock(NOW_NS))
    yield made
    made.end_file()


def kept(spool: Spool) -> list[dict[str, Any]]:
    """Returns the pushes in the spool."""
    return [json.loads(line) for path in spool.folder.iterdir() for line in path.read_text().splitlines()]


def test_what_is_pushed_is_kept_for_the_history_as_it_was_checked(spool: Spool) -> None:
    served = Served(spool=spool)
    served.push(row(7, age=41, country=None, spend=0.1))
    served.refusal("push", row(7, age=42), row(7, age="x"))
    (push,) = kept(spool)
    assert push == {
        "tenant": "acme",
        "view": "user_stats",
        "version": "1",
        "types": {"age": "INT64", "country": "BYTES", "spend": "FP32"},
        "created_us": NOW_NS // 1000,
        "rows": [["7", NOW_NS // 1_000_000, {"age": 41, "country": None, "spend": 0.10000000149011612}]],
    }
    served.runner.close()


def test_what_cannot_be_kept_for_the_history_is_refused_and_written_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    served = Served(spool=Spool(tmp_path / "file" / "features", ManualClock(NOW_NS)))
    fault = served.refusal("push", row(country="DE"))
    assert (fault.status, fault.text) == (
        503,
        "the rows cannot be kept for the history of features (Not a directory) and were not written: push them again",
    )
    assert dict(fault.headers)[b"retry-after"] == b"1"
    assert served.get("u7", features=["country"])["features"]["country"] == ["??"]
    (tmp_path / "file").unlink()
    assert served.push(row(country="DE")) == {"written": 1, "superseded": 0}
    served.features._spool.end_file()
    served.runner.close()


def test_what_the_online_store_refuses_is_kept_and_may_be_pushed_again(spool: Spool) -> None:
    store = MemoryFeatureStore(ManualClock(NOW_NS))
    down, up = Served(Fails(store), spool=spool), Served(store, spool=spool)
    assert down.refusal("push", row(age=41)).status == 503
    assert up.push(row(age=41)) == {"written": 1, "superseded": 0}
    first, second = kept(spool)
    assert first["rows"] == second["rows"]
    for one in (down, up):
        one.runner.close()


def test_a_tenant_whose_name_is_too_long_for_a_history_is_refused(spool: Spool) -> None:
    served = Served(spool=spool)
    fault = served.refusal("push", row(age=41), tenant="t" * 1000)
    assert (fault.status, fault.text) == (400, "the tenant's name has more than 248 bytes in percent-encoding")
    served.runner.close()


def test_views_are_described(served: Served) -> None:
    first = served.features.described()[0]
    assert (first["name"], first["entity"], first["key"]) == ("user_stats", "user", "user_id")
    assert first["features"][1] == {
        "name": "country",
        "datatype": "BYTES",
        "ttl_s": 86400,
        "missing": "default",
        "default": "??",
    }


def test_raw_rows_are_made_into_features_before_they_are_written() -> None:
    def make(view: FeatureView, given: Sequence[object], now_ms: int) -> list[Row]:
        if not given[0]:
            raise BadField("raw[0]", "is empty")
        return [Row("u7", now_ms, {"age": len(given)})]

    store = MemoryFeatureStore(ManualClock(NOW_NS))
    (view, *_) = VIEWS.views.values()
    views = FeatureViews.of([replace(view, transform="shop:stats"), VIEWS.views["shops"]])
    features = online_features(views, store, calendar=ManualClock(NOW_NS), make=make)

    async def run() -> None:
        assert await features.push("acme", "user_stats", {"raw": [1, 2]}) == {"written": 1, "superseded": 0}
        told = await features.get("acme", "user_stats", {"ids": ["u7"], "features": ["age"]})
        assert told["features"] == {"age": [2]}
        for view, body, text in (
            ("user_stats", {"raw": [{}]}, "raw[0]: is empty"),
            ("user_stats", {"raw": [1], "rows": [1]}, "rows: unknown; possible here: raw"),
            ("shops", {"raw": [1]}, "raw: shops has no function that makes features of raw columns"),
        ):
            with pytest.raises(CallFailed) as failed:
                await features.push("acme", view, body)
            assert (failed.value.fault.status, failed.value.fault.text) == (400, text)

    asyncio.run(run())
