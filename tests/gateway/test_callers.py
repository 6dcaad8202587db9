"""Tests who is let in: valid keys, all kinds of others, stores that are down, changes, expiry, failures by address."""

import asyncio
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from serving.api.faults import CallFailed, Fault
from serving.gateway.caller import Caller
from serving.gateway.callers import EVERY_S, NOT_NOW, OTHER_TENANT, UNAUTHENTICATED, Callers
from serving.gateway.failures import BURST, EVERY_NS, MOST_ADDRESSES, Failures, place_of
from serving.gateway.keys import Scope
from serving.testing.clock import ManualClock
from tests.gateway.stories import NOW_S, Door, S, bearer, creation, fixed, revocation, rotation

KEY, OTHER = fixed(1), fixed(2)


def fault(call: Callable[[], object]) -> Fault:
    with pytest.raises(CallFailed) as caught:
        call()
    return caught.value.fault


def test_a_key_says_who_calls_and_what_for() -> None:
    door = Door(creation(KEY, "acme", [Scope.PREDICT, Scope.FEEDBACK], NOW_S + 60))
    door.look()
    caller = door.callers.of(bearer(KEY))
    assert caller == Caller("acme", KEY.id, frozenset({Scope.PREDICT, Scope.FEEDBACK}), (NOW_S + 60) * S)
    assert door.callers.of(f"bearer  {KEY.text} ".encode(), "acme") is caller


def test_a_tenant_claimed_is_the_credentials_or_refused() -> None:
    door = Door(creation(KEY, "acme"))
    door.look()
    assert fault(lambda: door.callers.of(bearer(KEY), "globex")) == OTHER_TENANT
    assert fault(lambda: door.callers.of(bearer(KEY), "Acme")).status == 403


def wrong_secret() -> str:
    """Returns a well-formed key with the id of KEY and the secret of another."""
    import zlib

    from serving.gateway.key_text import _base62

    body = f"hw_{KEY.id}_{OTHER.text.split('_')[2]}"
    return f"{body}_{_base62(zlib.crc32(body.encode()), 6)}"


WRONG = {
    "nothing": "",
    "no scheme": KEY.text,
    "another scheme": f"Basic {KEY.text}",
    "an empty credential": "Bearer ",
    "not a key": "Bearer secret",
    "an unknown key": bearer(OTHER),
    "a wrong secret": f"Bearer {wrong_secret()}",
    "a wrong checksum": bearer(KEY)[:-1] + ("A" if KEY.text[-1] != "A" else "B"),
    "a key that was cut": bearer(KEY)[:-1],
    "a key and more": f"{bearer(KEY)} x",
    "a key twice": f"{bearer(KEY)}, {bearer(KEY)}",
    "a long text": "Bearer " + "x" * 100_000,
    "no latin": "Bearer schlüssel€",
    "a token where none are taken": "Bearer eyJhbGciOiJub25lIn0.e30.",
}


@pytest.mark.parametrize("shown", WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_with_a_credential_the_answer_is_the_same(shown: str) -> None:
    door = Door(creation(KEY))
    door.look()
    found = fault(lambda: door.callers.of(shown, "acme"))
    assert found is UNAUTHENTICATED
    assert (found.status, found.headers) == (401, ((b"www-authenticate", b"Bearer"),))


def test_revoked_and_expired_keys_get_that_answer_too() -> None:
    for record in (creation(KEY, expires_s=NOW_S), creation(KEY)):
        door = Door(record, *([revocation(KEY.id)] if b"null" in record else []))
        door.look()
        assert fault(lambda door=door: door.callers.of(bearer(KEY))) is UNAUTHENTICATED  # type: ignore[misc]


def steps(call: Callable[[], object]) -> tuple[str, ...]:
    """Returns the names of all functions that the call calls, in order."""
    names: list[str] = []

    def note(frame: FrameType, event: str, function: object) -> None:
        if event in ("call", "c_call"):
            names.append(frame.f_code.co_name if event == "call" else getattr(function, "__name__", ""))
            if names[-2:] == ["fullmatch", "fullmatch"]:
                names.pop()  # a text that is no key is replaced by one; that it is none is no secret

    sys.setprofile(note)
    try:
        call()
    except CallFailed:
        return tuple(names)
    finally:
        sys.setprofile(None)
    raise AssertionError("it was let in")


def test_every_failure_takes_the_same_steps() -> None:
    door = Door(creation(KEY), creation(fixed(3), expires_s=NOW_S))
    door.look()
    shown = ("Bearer nonsense", bearer(OTHER), f"Bearer {wrong_secret()}", bearer(fixed(3)))
    taken = {steps(lambda one=one: door.callers.of(one)) for one in shown}  # type: ignore[misc]
    assert len(taken) == 1
    assert {"presented", "openssl_sha256", "compare_digest"} <= {*taken.pop()}


def test_a_revocation_takes_effect_with_the_next_look_and_heads_are_asked_for_again() -> None:
    door = Door(creation(KEY))
    door.look()
    before = door.callers.generation
    door.look()
    assert door.callers.generation == before
    door.write(revocation(KEY.id))
    assert door.callers.of(bearer(KEY)).tenant == "acme"
    door.look()
    assert door.callers.generation == before + 1
    assert fault(lambda: door.callers.of(bearer(KEY))).status == 401


def test_the_loop_looks_often_enough_for_a_revocation_in_five_seconds() -> None:
    assert 2 * EVERY_S < 5


def test_both_keys_of_a_rotation_are_valid_for_the_overlap() -> None:
    door = Door(creation(KEY))
    door.look()
    assert door.callers._log is not None
    door.write(rotation(door.callers._log.keys[KEY.id], OTHER, NOW_S + 60))
    door.look()
    door.clock.advance(60 * S - 1)
    assert {door.callers.of(bearer(key)).tenant for key in (KEY, OTHER)} == {"acme"}
    door.clock.advance(1)
    assert fault(lambda: door.callers.of(bearer(KEY))).status == 401
    assert door.callers.of(bearer(OTHER)).key_id == OTHER.id


def test_the_generation_rises_when_a_caller_that_was_let_in_expires() -> None:
    door = Door(creation(KEY, expires_s=NOW_S + 60), creation(OTHER, expires_s=NOW_S + 30))
    door.look()
    door.callers.of(bearer(KEY))
    before = door.callers.generation
    door.clock.advance(30 * S)
    door.look()
    assert door.callers.generation == before  # nobody has used the other one
    door.clock.advance(30 * S)
    door.look()
    assert door.callers.generation == before + 1
    door.look()
    assert door.callers.generation == before + 1


def test_a_clock_that_is_set_back_and_forth_ends_no_key_for_good() -> None:
    door = Door(creation(KEY, expires_s=NOW_S + 60))
    door.look()
    for at_s, valid in ((-(10**6), True), (10**6, False), (0, True), (61, False)):
        door.clock = ManualClock((NOW_S + at_s) * S)
        door.callers._calendar = door.clock
        door.look()
        if valid:
            door.callers.of(bearer(KEY))
        else:
            assert fault(lambda: door.callers.of(bearer(KEY))).status == 401


def test_while_the_store_was_never_reached_a_key_may_be_good_and_nonsense_is_not() -> None:
    door = Door(creation(KEY))
    door.store.is_down = True
    door.look()
    assert fault(lambda: door.callers.of(bearer(KEY))) == NOT_NOW
    assert NOT_NOW.retry_after_ns == 2 * S
    assert fault(lambda: door.callers.of("Bearer nonsense")).status == 401
    door.store.is_down = False
    door.look()
    assert door.callers.of(bearer(KEY)).tenant == "acme"


def test_known_keys_go_on_working_while_the_store_is_down_and_the_log_says_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = Door(creation(KEY), creation(fixed(3)), revocation(fixed(3).id))
    door.look()
    door.store.is_down = True
    door.look()
    door.look()
    assert door.callers.of(bearer(KEY)).tenant == "acme"
    assert fault(lambda: door.callers.of(bearer(OTHER))).status == 503
    assert fault(lambda: door.callers.of(f"Bearer {wrong_secret()}")).status == 503  # as of an id that is unknown
    assert fault(lambda: door.callers.of(bearer(fixed(3)))).status == 401
    said = [record.getMessage() for record in caplog.records]
    assert said == ["keys: the test says so", "keys: their store is not reachable; those known go on working"]
    assert list(door.callers.troubles()) == said[1:]
    door.store.is_down = False
    door.look()
    assert door.callers.troubles() == ()
    assert fault(lambda: door.callers.of(bearer(OTHER))).status == 401


def test_a_record_that_cannot_be_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(creation(KEY), b"{")
    door.look()
    door.look()
    assert door.callers.of(bearer(KEY))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("keys: keys/log/000000000002.json is not JSON")


def test_whatever_fails_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(creation(KEY))
    turns: list[str] = []
    found = asyncio.Event()

    async def broken(folder: str, after: str = "") -> list[str]:
        turns.append(folder)
        if len(turns) == 1:
            raise ZeroDivisionError
        if len(turns) == 3:  # after a whole turn
            found.set()
        return sorted(door.store.objects)

    async def story() -> None:
        door.store.paths = broken  # type: ignore[method-assign]
        async with asyncio.timeout(10):
            task = asyncio.ensure_future(door.callers.keep_current(every_s=0))
            await found.wait()
            task.cancel()

    asyncio.run(story())
    assert "could not be looked for" in caplog.text
    assert door.callers.of(bearer(KEY))


def test_without_keys_in_the_settings_no_key_is_taken() -> None:
    callers = Callers(None, calendar=ManualClock(NOW_S * S))
    asyncio.run(callers.look(NOW_S * S))
    assert fault(lambda: callers.of(bearer(KEY))).status == 401


def test_an_address_that_fails_too_often_has_to_wait_and_valid_keys_do_not() -> None:
    door = Door(creation(KEY))
    door.look()
    for _ in range(BURST):
        assert fault(lambda: door.callers.of(bearer(OTHER), address=lambda: "192.0.2.1")).status == 401
    limited = fault(lambda: door.callers.of(bearer(OTHER), address=lambda: "192.0.2.1"))
    assert (limited.status, limited.retry_after_ns) == (429, EVERY_NS)
    assert door.callers.of(bearer(KEY), address=lambda: "192.0.2.1")
    assert fault(lambda: door.callers.of(bearer(OTHER), address=lambda: "192.0.2.2")).status == 401
    door.clock.advance(EVERY_NS)
    assert [fault(lambda: door.callers.of(bearer(OTHER), address=lambda: "192.0.2.1")).status for _ in range(2)] == [
        401,
        429,
    ]


def test_a_request_without_a_credential_is_no_failed_one() -> None:
    door = Door()
    door.look()
    assert {fault(lambda: door.callers.of("", address=lambda: "192.0.2.1")).status for _ in range(2 * BURST)} == {401}


def test_the_table_of_failures_is_bounded_and_a_clock_set_back_locks_nobody_out() -> None:
    failures = Failures()
    for number in range(2 * MOST_ADDRESSES):
        failures.note(f"10.0.{number >> 8}.{number & 255}", NOW_S * S)
    failures.note("", NOW_S * S)
    assert len(failures) == MOST_ADDRESSES
    for _ in range(3 * BURST):
        failures.note("192.0.2.1", NOW_S * S)
    assert failures.wait_ns("192.0.2.1", NOW_S * S) == EVERY_NS
    assert failures.wait_ns("192.0.2.1", (NOW_S - 10**6) * S) == EVERY_NS
    assert failures.wait_ns("192.0.2.1", (NOW_S + BURST) * S) == 0


def test_addresses_of_one_machine_count_as_one() -> None:
    assert place_of("2001:db8::1") == place_of("2001:db8::ffff:0:0:2") != place_of("2001:db8:0:1::1")
    assert place_of("::ffff:192.0.2.1") == place_of("192.0.2.1") == "192.0.2.1"
    assert len(place_of("x" * 1000)) == 64
