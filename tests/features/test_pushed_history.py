"""Tests that the history of what was pushed says at every time what was answered online then."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.features.offline.drain import drain
from serving.features.offline.spool import Spool
from serving.features.reading import Answers, Selection
from serving.features.views import Feature, FeatureView, FeatureViews, Missing
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from tests.features.offline_store import KINDS, NOON, Row, tried
from tests.features.test_history import answered, asked
from tests.gateway.feature_stores import online_features

OPTIONAL = {"missing": Missing.DEFAULT}
VIEW = FeatureView(
    name="stats",
    entity="user",
    key="user_id",
    features=(
        Feature(name="age", datatype="INT64", default=-1, **OPTIONAL),
        Feature(name="share", datatype="FP32", default=0.5, ttl_s=60, **OPTIONAL),
        Feature(name="word", datatype="BYTES", default="", **OPTIONAL),
    ),
)
AGE = Feature(name="age", datatype="INT64", default=-2, **OPTIONAL)
OTHER = FeatureView(name="other", entity="shop", key="user_id", features=(AGE,))
TENANTS = ("acme", "acme/view=stats", "")
IDS = ("u1", "acme", "view=stats", "1")


def rfc3339(event_ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=event_ms)).isoformat()


def values(dice: random.Random, view: FeatureView) -> dict[str, Any]:
    possible = {"age": dice.randrange(100), "share": dice.randrange(8) / 8, "word": dice.choice(["a", "ü", ""])}
    chosen = [feature.name for feature in view.features if dice.random() < 0.7] or ["age"]
    return {name: None if dice.random() < 0.2 else possible[name] for name in chosen}


@pytest.mark.parametrize(("kind", "seed"), [*(("folder", seed) for seed in range(4)), ("bucket", 0)])
def test_random_pushes_of_tenants_are_in_the_history_as_they_were_answered(
    tmp_path: Path, kind: str, seed: int
) -> None:
    history_of = KINDS[kind](tmp_path)
    dice = random.Random(seed)
    clock = ManualClock(NOON * 1000)
    spools = [Spool(tmp_path, clock) for _ in range(2)]  # the second takes over when the first has ended
    views = FeatureViews.of([VIEW, OTHER])
    store = MemoryFeatureStore(clock)
    history: dict[tuple[str, str], list[Row]] = {}
    told: list[tuple[str, FeatureView, str, int, Answers]] = []  # what was answered online, and when

    async def run(spool: Spool) -> None:
        features = online_features(views, store, calendar=clock, spool=spool)
        last_us = 0
        for _ in range(40):
            clock.advance(dice.choice([0, 0, 1, 1000, 60_000]) * 1_000_000)
            tenant, view = dice.choice(TENANTS), dice.choice([VIEW, OTHER])
            now_ms = clock.now_ns() // 1_000_000
            last_us = max(now_ms * 1000, last_us + 1)
            rows = []
            for _ in range(dice.randrange(1, 4)):
                row = Row(dice.choice(IDS), now_ms - dice.choice([0, 0, 5, 2000]), last_us, values(dice, view))
                rows.append({"user_id": row.id, "event_ts": rfc3339(row.event), **row.values})
                history.setdefault((tenant, view.name), []).append(row._replace(event=row.event * 1000))
            await features.push(tenant, view.name, {"rows": rows})
            for tenant in TENANTS:
                for id in IDS:
                    (answers,) = await features.answers(tenant, Selection(VIEW, VIEW.features), [id])
                    told.append((tenant, VIEW, id, last_us, answers))
            if dice.random() < 0.2:
                await asyncio.to_thread(spool.end_file)
                assert await asyncio.to_thread(drain, tmp_path, history_of) == []

    for spool in spools:
        asyncio.run(run(spool))
        spool.end_file()
        clock.advance(1_000_000_000)
    assert drain(tmp_path, history_of) == []
    for tenant in TENANTS:
        at_us = [(id, last_us) for who, _, id, last_us, _ in told if who == tenant]
        online = [answers for who, _, _, _, answers in told if who == tenant]
        found = [answered(answer, VIEW) for answer in asked(history_of, [VIEW], at_us, tenant=tenant)]
        rows = history.get((tenant, "stats"), [])
        assert repr(found) == repr([tried(VIEW, rows, id, at) for id, at in at_us])
        offline = [[value for value, _ in features.values()] for features in found]
        assert offline == [answers.values for answers in online]
