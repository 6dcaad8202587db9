"""Tests that inputs are filled with features, and how requests end whose features are not there."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serving.core.errors import FeaturesUnavailable, InvalidInput
from serving.core.outcome import Cancelled, Completed, Failed, Outcome, Rejected
from serving.core.outcome import Reason as Reject
from serving.features.backend import FeatureBackend
from serving.features.binding import bound
from serving.features.reading import Answers, Reason, Selection
from serving.features.requests import lacked
from serving.features.views import Feature, FeatureView, FeatureViews, Missing
from serving.testing.backend import EchoBackend
from serving.testing.clock import ManualClock

STATS = FeatureView(
    name="stats",
    entity="user",
    key="user_id",
    features=(
        Feature(name="age", datatype="INT64"),
        Feature(name="spend", datatype="FP32", missing=Missing.DEFAULT, default=0.5),
    ),
)
PROFILE = FeatureView(
    name="profile",
    entity="user",
    key="user_id",
    features=(
        Feature(name="country", datatype="BYTES", missing=Missing.DEFAULT, default="??"),
        Feature(name="vip", datatype="BOOL", missing=Missing.DEFAULT, default=False),
    ),
)
SHOPS = FeatureView(name="shops", entity="shop", key="shop_id", features=(Feature(name="open", datatype="BOOL"),))
VIEWS = FeatureViews.of([STATS, PROFILE, SHOPS])
INPUTS = {"x": ["stats.spend", "profile.vip", "stats.age", "stats.age"], "texts": ["profile.country"]}


class Told:
    """Features of the entities "1", "2" and so on, whose age is their id. Reading waits while the gate is closed."""

    def __init__(self, reason: Reason = Reason.PRESENT) -> None:
        self.reason = reason
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Semaphore(0)
        self.values: dict[str, Any] = {"spend": 2.5, "country": "Perú", "vip": True}

    async def connect(self) -> None: ...

    async def answers(self, tenant: str, asked: Selection, ids: Sequence[str]) -> list[Answers]:
        self.asked.append((tenant, asked.view.name, asked.names))
        self.begun.release()
        await self.gate.wait()
        is_known = self.reason is Reason.PRESENT
        return [
            Answers(
                [self.values.get(one.name, int(id)) if is_known else one.default for one in asked.features],
                [self.reason] * len(asked.names),
                [],
                0,
            )
            for id in ids
        ]


class Story:
    """A backend with features in front of an echo. ended: the requests that never reached the echo."""

    def __init__(self, reason: Reason = Reason.PRESENT) -> None:
        self.echo, self.told, self.clock = EchoBackend(), Told(reason), ManualClock()
        self.ended: list[tuple[str, Outcome]] = []
        self.backend = FeatureBackend(
            self.echo,
            bound(VIEWS, "user_id", INPUTS),
            self.told,
            datatypes={"x": "FP32", "texts": "BYTES", "other": "INT64"},
            most_rows=100,
            ended=lambda tenant, outcome: self.ended.append((tenant, outcome)),
            clock=self.clock,
        )

    def submit(self, *ids: object, **more: Any) -> Any:
        array = np.array([[id] for id in ids], dtype=object)
        payload = {"user_id": array, "other": np.zeros((len(ids), 1), np.int64)}
        return self.backend.submit(payload, rows=len(ids), tenant="acme", **more)


def test_the_model_gets_the_features_of_each_row_in_the_order_of_the_settings() -> None:
    async def run() -> None:
        story = Story()
        outcome = await story.submit(b"7", "8", priority=3, timeout_ns=5, age_ns=2)
        assert type(outcome) is Completed
        value: Any = outcome.value
        assert value.keys() == {"x", "texts", "other"}
        assert value["x"].tolist() == [[2.5, 1.0, 7.0, 7.0], [2.5, 1.0, 8.0, 8.0]]
        assert (value["x"].dtype, value["texts"].tolist()) == (np.float32, [["Perú".encode()]] * 2)
        assert story.told.asked == [("acme", "stats", ("spend", "age")), ("acme", "profile", ("vip", "country"))]
        (submitted,) = story.echo.submissions
        assert (submitted.rows, submitted.tenant, submitted.priority) == (2, "acme", 3)
        assert (submitted.timeout_ns, submitted.age_ns) == (5, 2)
        assert story.ended == []

    asyncio.run(run())


def test_a_value_that_the_input_cannot_hold_is_refused_and_not_made_infinite() -> None:
    async def run() -> None:
        story = Story()
        story.told.values["spend"] = 1e300
        outcome = await story.submit("7")
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, InvalidInput)
        assert str(outcome.error) == "stats.spend: 1e+300 does not fit into the input, which is FP32"
        story.told.values["spend"] = float("inf")
        outcome = await story.submit("7")
        assert outcome.value["x"][0, 0] == float("inf")

    asyncio.run(run())


def test_the_time_to_read_features_counts_against_the_deadline() -> None:
    async def run() -> None:
        story = Story()
        story.told.gate.clear()
        submitted = story.submit(b"7", age_ns=2)
        await story.told.begun.acquire()
        story.clock.advance(1000)
        story.told.gate.set()
        assert type(await submitted) is Completed
        assert story.echo.submissions[0].age_ns == 1002

    asyncio.run(run())


@pytest.mark.parametrize(
    ("reason", "error", "text"),
    [
        (Reason.MISSING, InvalidInput, "stats.age: the value of user '7' is not known"),
        (Reason.EXPIRED, InvalidInput, "stats.age: the value of user '7' has expired"),
        (Reason.UNAVAILABLE, FeaturesUnavailable, "stats.age: the feature store does not answer"),
    ],
)
def test_without_a_required_feature_the_request_fails_and_is_counted_once(
    reason: Reason, error: type[Exception], text: str
) -> None:
    async def run() -> None:
        story = Story(reason)
        outcome = await story.submit(b"7")
        assert type(outcome) is Failed
        assert (type(outcome.error), str(outcome.error)) == (error, text)
        assert story.ended == [("acme", outcome)]
        assert not story.echo.submissions

    asyncio.run(run())


@pytest.mark.parametrize(("id", "text"), [(b"", "is empty"), (b"\xff", "no text in UTF-8"), (b"x" * 600, "600 bytes")])
def test_an_id_that_is_none_is_refused_by_its_row(id: bytes, text: str) -> None:
    async def run() -> None:
        outcome = await Story().submit(b"7", id)
        assert type(outcome) is Failed
        assert isinstance(outcome.error, InvalidInput)
        assert str(outcome.error).startswith("user_id[1]: ")
        assert text in str(outcome.error)

    asyncio.run(run())


def test_a_request_may_be_withdrawn_before_and_after_its_features_are_there() -> None:
    async def run() -> None:
        story = Story()
        story.told.gate.clear()
        early = story.submit(b"7")
        await story.told.begun.acquire()
        early.cancel()
        assert type(await early) is Cancelled
        assert [type(outcome) for _, outcome in story.ended] == [Cancelled]
        early.cancel()
        story.told.gate.set()
        story.echo.hold()
        late = story.submit(b"8")
        await story.backend.leave()
        assert len(story.echo.submissions) == 1
        late.cancel()
        assert type(await late) is Cancelled
        assert len(story.ended) == 1  # the other is counted by the backend behind

    asyncio.run(run())


def test_leaving_waits_for_requests_whose_features_are_being_read() -> None:
    async def run() -> None:
        story = Story()
        story.told.gate.clear()
        submitted = story.submit(b"7")
        await story.told.begun.acquire()
        leaving = asyncio.create_task(story.backend.leave())
        story.told.gate.set()
        await leaving
        assert len(story.echo.submissions) == 1
        assert type(await submitted) is Completed
        await story.backend.leave()

    asyncio.run(run())


def test_a_bug_while_reading_ends_the_request() -> None:
    async def run() -> None:
        story = Story()
        outcome = await story.submit(b"seven")  # the fake expects a number
        assert type(outcome) is Failed
        assert str(outcome.error) == "internal error"
        assert len(story.ended) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": ["stats.age", "nope.age"]}, r"inputs\.x\[1\]: 'nope.age' names no feature: expected view.feature"),
        ({"x": ["age"]}, r"inputs\.x\[0\]: 'age' names no feature"),
        ({"x": ["stats.size"]}, r"inputs\.x\[0\]: stats has no feature 'size'"),
        ({"x": ["stats.age"], "y": ["shops.open"]}, r"inputs\.y\[0\]: is a feature of 'shop', and those before it are"),
    ],
)
def test_what_cannot_be_bound_is_named(inputs: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound(VIEWS, "user_id", inputs)


def test_a_request_with_too_many_rows_is_rejected_before_anything_is_read_for_it() -> None:
    async def run() -> None:
        story = Story()
        outcome = await story.submit(*(str(number) for number in range(101)))
        assert outcome == Rejected(Reject.TOO_LARGE, 0, 100)
        assert (story.told.asked, story.ended) == ([], [("acme", outcome)])
        assert type(await story.submit(*(str(number) for number in range(100)))) is Completed

    asyncio.run(run())


def test_an_answer_says_of_which_features_no_valid_value_was_known_if_the_request_asks_for_it() -> None:
    async def run() -> None:
        story = Story(Reason.PRESENT)
        known = await story.submit("7", feature_reasons=True)
        assert (known.features, (await story.submit("7")).features) == ("none", None)

    asyncio.run(run())


def selection(view: str, *names: str) -> Selection:
    features = tuple(Feature(name=name, datatype="FP32") for name in names)
    return Selection(FeatureView(name=view, entity="user", key="id", features=features), features)


@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.OTHER_VERSION])
def test_what_was_not_known_is_counted_by_feature(reason: Reason) -> None:
    views = [selection("stats", "age"), selection("shop", "size")]
    known, lacking = (Answers([1.0], [one], [], 0) for one in (Reason.PRESENT, reason))
    told = lacked(views, [[known, lacking, lacking], [known, known, lacking]])
    assert told == f"stats.age={reason.replace(' ', '-')}:2, shop.size={reason.replace(' ', '-')}:1"
    assert lacked(views, [[known], [known]]) == "none"
    wide = selection("wide", *(f"f{number}" for number in range(60)))
    assert lacked([wide], [[Answers([1.0] * 60, [reason] * 60, [], 0)]]).endswith(":1, and 10 more")
