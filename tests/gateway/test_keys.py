"""Tests keys as text and as records: what is accepted, what the fold of records says, and that no text leaks."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.key_text import NewKey, id_of, make_key, presented, scrubbed
from serving.gateway.keys import Key, Scope, closed_by, folded
from serving.store.log import BadRecord
from tests.gateway.stories import NOW_S, creation, fixed, keys_of, revocation, rotation

randomness = st.binary(min_size=32, max_size=32)


@given(randomness)
def test_a_key_is_recognised_by_its_text_and_by_nothing_like_it(drawn: bytes) -> None:
    new = make_key(lambda count: drawn[:count])
    assert len(new.text) == len("hw_") + 12 + 1 + 43 + 1 + 6
    assert presented(new.text.encode()) == (new.id, new.digest)
    assert id_of(new.text) == id_of(new.id) == new.id


@given(randomness, st.integers(0, 65), st.characters(codec="ascii"))
def test_a_key_with_any_character_changed_is_no_key(drawn: bytes, at: int, character: str) -> None:
    text = make_key(lambda count: drawn[:count]).text
    changed = text[:at] + character + text[at + 1 :]
    if changed != text:
        assert presented(changed.encode()).id == ""


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_answered_with_a_digest(sent: bytes) -> None:
    assert len(presented(sent).digest) == 32


def test_two_keys_share_nothing() -> None:
    one, other = fixed(1), fixed(2)
    assert one.id != other.id
    assert one.digest != other.digest


def test_the_text_of_a_key_is_in_no_repr_and_no_record() -> None:
    new = fixed(1)
    secret = new.text.split("_")[2]
    keys = keys_of(creation(new))
    for text in (repr(new), str(new), f"{new}", creation(new).decode(), repr(keys), repr([new])):
        assert secret not in text
    assert new.id in repr(new)


def test_the_digest_in_the_records_is_that_of_the_secret() -> None:
    new = fixed(1)
    assert json.loads(creation(new))["secret_sha256"] == new.digest.hex()


def test_keys_and_tokens_are_removed_from_text_for_logs() -> None:
    new = fixed(1)
    assert scrubbed(f"GET /v2/{new.text}?x=1") == f"GET /v2/hw_{new.id}_...?x=1"
    assert new.text[20:40] not in scrubbed(f"a {new.text[:50]} b")  # also of one that was cut
    assert scrubbed("Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln") == "Bearer eyJ..."
    assert scrubbed("hw_models are fine") == "hw_models are fine"


def test_a_created_key_has_what_its_record_says() -> None:
    new = fixed(1)
    keys = keys_of(creation(new, "acme", [Scope.ADMIN, Scope.PREDICT], NOW_S + 60))
    assert keys == {
        new.id: Key(
            id=new.id,
            digest=new.digest,
            tenant="acme",
            scopes=frozenset({Scope.PREDICT, Scope.ADMIN}),
            created_s=NOW_S,
            expires_s=NOW_S + 60,
        )
    }
    assert [keys[new.id].state(NOW_S + at) for at in (59, 60)] == ["active", "expired"]


def test_a_rotated_key_is_valid_for_the_overlap_beside_its_successor() -> None:
    first, second = fixed(1), fixed(2)
    keys = keys_of(creation(first, "acme", [Scope.FEEDBACK]))
    keys = folded(keys, rotation(keys[first.id], second, NOW_S + 60))
    assert (keys[first.id].expires_s, keys[first.id].replaced_by) == (NOW_S + 60, second.id)
    assert (keys[second.id].tenant, keys[second.id].scopes, keys[second.id].expires_s) == (
        "acme", frozenset({Scope.FEEDBACK}), None
    )  # fmt: skip


def test_an_overlap_never_lengthens_a_key() -> None:
    first = fixed(1)
    keys = keys_of(creation(first, expires_s=NOW_S + 10))
    assert folded(keys, rotation(keys[first.id], fixed(2), NOW_S + 60))[first.id].expires_s == NOW_S + 10


def test_a_revoked_key_stays_revoked_whatever_follows() -> None:
    first, second = fixed(1), fixed(2)
    before = keys_of(creation(first))
    keys = folded(before, revocation(first.id))
    for record in (creation(first), rotation(before[first.id], second, NOW_S + 60)):
        with pytest.raises(BadRecord):
            folded(keys, record)
    assert folded(keys, revocation(first.id, NOW_S + 9))[first.id].revoked_s == NOW_S


def test_a_clock_that_jumps_changes_nothing_about_the_order_of_records() -> None:
    new = fixed(1)
    keys = keys_of(creation(new, now_s=NOW_S), revocation(new.id, now_s=NOW_S - 10**6))
    assert keys[new.id].state(NOW_S) == "revoked"


GOOD = json.loads(creation(fixed(1)))


def changed(**values: Any) -> bytes:
    return json.dumps({**GOOD, **values}).encode()


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"", "is not JSON"),
        (creation(fixed(1))[:-3], "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is no record of a key"),
        (b'{"kind": "created"}', "is no record of a key"),
        (changed(kind=None), "is no record of a key"),
        (changed(version=2), "use a newer release"),
        (changed(version=True), "is not of version 1"),
        (changed(version="1"), "is not of version 1"),
        (changed(kind="suspended"), "does not know; use the release that wrote it"),
        (changed(key="../etc"), "holds no id of a key"),
        (changed(key=5), "holds no id of a key"),
        (changed(secret_sha256="00"), "holds no SHA-256"),
        (changed(secret_sha256=GOOD["secret_sha256"].upper()), "holds no SHA-256"),
        (changed(tenant=""), "names no tenant"),
        (changed(tenant="a b"), "names no tenant"),
        (changed(tenant=["a"]), "names no tenant"),
        (changed(scopes="predict"), "lists no scopes"),
        (changed(scopes=["predict", "fly"]), "grants a scope that this release does not know"),
        (changed(expires_s="soon"), "holds no time in `expires_s`"),
        (changed(expires_s=-1), "holds no time"),
        (changed(expires_s=1e9), "holds no time"),
        (changed(at_s=10**15), "holds no time in `at_s`"),
        (json.dumps({name: value for name, value in GOOD.items() if name != "expires_s"}).encode(), "holds no time"),
        (revocation("0" * 12), "is about a key that no record before it has made"),
    ],
)
def test_a_record_that_is_cut_foreign_or_of_the_future_is_refused_and_not_quoted(record: bytes, why: str) -> None:
    with pytest.raises(BadRecord, match=why) as caught:
        folded({}, record)
    assert GOOD["secret_sha256"] not in str(caught.value)


def test_a_void_record_stands_in_for_one_that_was_lost() -> None:
    keys = keys_of(creation(fixed(1)))
    assert folded(keys, b'{"version": 1, "kind": "void"}') == keys


def test_a_key_named_by_a_record_of_the_future_is_closed() -> None:
    new, other = fixed(1), fixed(2)
    keys = keys_of(creation(new), creation(other))
    closed = closed_by(keys, json.dumps({"version": 2, "kind": "suspended", "key": new.id}).encode())
    assert [closed[key.id].state(NOW_S) for key in (new, other)] == ["revoked", "active"]
    for record in (b"{", b"[]", b'{"key": 5}', b'{"key": ["x"], "old": "nobody"}'):
        assert closed_by(keys, record) == keys


@given(
    st.lists(
        st.tuples(st.sampled_from(["create", "revoke", "rotate"]), st.integers(0, 4), st.integers(5, 9)), max_size=12
    )
)
def test_however_records_follow_each_other_no_ended_key_comes_back(steps: list[tuple[str, int, int]]) -> None:
    made = [fixed(seed) for seed in range(10)]
    keys: Any = {}
    for verb, first, second in steps:
        before = keys
        try:
            keys = folded(keys, _record(verb, before, made[first], made[second]))
        except BadRecord:
            assert keys is before
        for id, old in before.items():
            assert (keys[id].digest, keys[id].tenant, keys[id].scopes) == (old.digest, old.tenant, old.scopes)
            if old.state(NOW_S + 100) != "active":
                assert keys[id].state(NOW_S + 100) != "active"


def _record(verb: str, keys: Any, first: NewKey, second: NewKey) -> bytes:
    if verb == "create":
        return creation(first)
    if verb == "revoke" or first.id not in keys:
        return revocation(first.id)
    return rotation(keys[first.id], second, NOW_S + 60)
