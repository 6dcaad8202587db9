"""Tests that keys of different things are different, whatever the names."""

from hypothesis import given
from hypothesis import strategies as st

from serving.store.keys import Keys

NAMES = st.text(st.sampled_from("ab:%{}/\\ü \n"), max_size=4)


def test_parts_with_colons_do_not_meet() -> None:
    keys = Keys()
    assert keys.key("answer", "a:b", "c") == "headway:1:answer:a%3Ab:c"
    assert keys.key("answer", "a", "b:c") != keys.key("answer", "a:b", "c")


@given(st.lists(NAMES, min_size=2, max_size=3), st.lists(NAMES, min_size=2, max_size=3), NAMES, NAMES)
def test_a_key_says_exactly_of_what_it_is(some: list[str], others: list[str], one: str, two: str) -> None:
    first, second = Keys(one).key("answer", *some), Keys(two).key("answer", *others)
    assert (first == second) == ((one, some) == (two, others))
    assert "{" not in first
    assert first.isascii()


def test_prefixes_keep_installations_apart() -> None:
    assert Keys("a").quota("t") != Keys("b").quota("t")
    assert Keys().present() != Keys().quota("present")


@given(st.tuples(NAMES, NAMES, NAMES), st.lists(NAMES, max_size=3))
def test_keys_of_several_features_are_those_of_each(entity: tuple[str, str, str], features: list[str]) -> None:
    keys = Keys()
    assert keys.features(*entity, features) == [keys.key("feature", *entity, feature) for feature in features]
