"""Tests that what is served at any time is what the history says of it later, whatever was written in which order."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.features.offline.replay import replay
from serving.features.offline.served import Served
from serving.features.offline.training import Limits
from serving.features.reading import Selection
from serving.features.rows import Row
from serving.features.views import Feature, FeatureView, Missing
from serving.gateway.features import writes_of
from serving.store.features import Wanted
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from tests.features import offline_store
from tests.features.offline_store import NOON, stored

VIEW = FeatureView(
    name="clicks",
    entity="user",
    key="user_id",
    features=(
        Feature(name="count", datatype="INT64", ttl_s=3, missing=Missing.DEFAULT, default=-1),
        Feature(name="share", datatype="FP32", ttl_s=4, missing=Missing.LAST_KNOWN, default=0.5),
        Feature(name="name", datatype="BYTES", ttl_s=8),
    ),
)
IDS = ("u1", "u2")
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "count": st.none() | st.integers(0, 3),
        "share": st.none() | st.sampled_from([0.25, 0.75]),
        "name": st.none() | st.sampled_from(["a", "b"]),
    },
)
# The rows of a push, each with the seconds since its event; and the seconds that pass before it.
PUSHES = st.lists(
    st.tuples(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 6), VALUES), max_size=4)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(pushes=PUSHES)
def test_what_is_served_is_what_the_history_says_later(pushes) -> None:
    clock = ManualClock(NOON * 1000)
    online = MemoryFeatureStore(clock)
    names = tuple(feature.name for feature in VIEW.features)
    served: list[Served] = []
    with TemporaryDirectory() as folder:
        for number, (pause_s, pushed) in enumerate(pushes):
            clock.advance(pause_s * 10**9)
            now_ms = clock.now_ns() // 10**6
            rows = [Row(id, now_ms - age_s * 1000, values) for id, age_s, values in pushed]
            asyncio.run(online.write(list(writes_of(VIEW, "acme", rows))))
            kept = [offline_store.Row(row.id, row.event_ms * 1000, now_ms * 1000, dict(row.values)) for row in rows]
            stored(Path(folder), VIEW, kept, name=f"{number}")
            for later_s in (0, 1, 9):
                at_ms = now_ms + later_s * 1000
                if later_s and number + 1 < len(pushes):
                    continue  # the next push may come before
                clock.advance((at_ms - clock.now_ns() // 10**6) * 10**6)
                found = asyncio.run(online.read([Wanted("acme", "user", id, names) for id in IDS]))
                for id, of_id in zip(IDS, found, strict=True):
                    told = Selection(VIEW, VIEW.features).answers(of_id, at_ms)
                    values = dict(zip(names, told.values, strict=True))
                    reasons = dict(zip(names, map(str, told.reasons), strict=True))
                    served.append(Served("acme", "clicks", id, at_ms, values, reasons))
        assert not list(replay(served, {"clicks": VIEW}, Path(folder), Limits("500MB", 1, Path(folder))))
