"""Charts: the positions of marks, their tooltips, and gaps."""

import math
import re
from xml.etree import ElementTree

import pytest

from loadtest.charts import Scale, Series, coarser, columns, label, lines, log_ticks, named_bars, ticks


def drawn(svg: str) -> ElementTree.Element:
    """Parses a chart, which checks that it is well-formed."""
    return ElementTree.fromstring(svg)


def test_ticks_are_round_numbers_within_the_range() -> None:
    assert ticks(0, 1000) == [0, 200, 400, 600, 800, 1000]
    assert ticks(0, 0.07) == [0, 0.02, 0.04, 0.06]
    assert ticks(5, 5) == [5]
    assert log_ticks(3, 60) == [5, 10, 20, 50]
    assert log_ticks(0.5, 9000) == [1, 10, 100, 1000]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (20, "20"), (1234.4, "1,234"), (15_000, "15k"), (2_500_000, "2.5M"), (37.68, "37.7")],
)
def test_numbers_are_written_as_people_read_them(value: float, text: str) -> None:
    assert label(value) == text


def test_a_scale_maps_its_ends_and_its_middle() -> None:
    assert [Scale(0, 10, 100, 200).at(value) for value in (0, 5, 10)] == [100, 150, 200]
    assert Scale(1, 100, 0, 100, is_log=True).at(10) == pytest.approx(50)


def test_a_line_breaks_where_a_value_is_missing_or_infinite() -> None:
    series = Series(name="p99", style="q3", points=[(0, 1.0), (1, 2.0), (2, None), (3, 1.0), (4, math.inf), (5, 2.0)])
    svg = lines([series], x_title="second", y_title="ms")
    path = re.search(r'class="line" d="([^"]*)"', svg)
    assert path is not None
    assert re.sub(r"[\d. ]", "", path[1]) == "MLMM"
    assert len(drawn(svg).findall(".//circle")) == 4


def test_marks_say_their_value_and_names_are_escaped() -> None:
    svg = lines([Series(name="<b>", style="s1", points=[(1, 20.0)])], x_title="a & b", y_title="ms")
    assert [title.text for title in drawn(svg).iter("title")] == ["<b>: 20 at 1"]


def test_a_histogram_has_a_column_for_each_count_and_a_line_for_each_mark() -> None:
    svg = columns([(1, 2, 5), (2, 4, 10)], x_title="ms", y_title="shots", marks={"p50": 1.5, "p99": 9.0})
    tree = drawn(svg)
    heights = [float(each.attrib["height"]) for each in tree.iter("rect")]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert sum(each.attrib.get("class") == "mark" for each in tree.iter("path")) == 2


def test_bars_over_names_keep_their_order() -> None:
    tree = drawn(named_bars({"1": 3, "8": 6}, x_title="rows", y_title="batches"))
    assert [title.text for title in tree.iter("title")] == ["1: 3", "8: 6"]


@pytest.mark.parametrize(
    "drawing",
    [
        lines([Series(name="p99", style="q3", points=[(0, None)])], x_title="", y_title=""),
        columns([], x_title="", y_title="", marks={}),
        named_bars({}, x_title="", y_title=""),
    ],
)
def test_a_chart_without_data_is_replaced_by_a_text(drawing: str) -> None:
    assert 'class="nothing"' in drawing


def test_zeros_can_be_drawn() -> None:
    assert drawn(lines([Series(name="a", style="s1", points=[(0, 0.0)])], x_title="", y_title="")) is not None
    assert drawn(named_bars({"1": 0}, x_title="", y_title="")) is not None


def test_buckets_are_joined_until_they_can_be_seen_and_none_is_lost() -> None:
    found = coarser(dict.fromkeys(range(0, 200, 2), 1), bound=float, wanted=60)
    assert len(found) <= 60
    assert sum(count for _, _, count in found) == 100
    assert found[0][0] == 0
