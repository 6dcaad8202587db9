"""The form that asks for a key, in a real browser, on the page to try a model."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.reference import linear_spec, words_spec
from tests.api.keyed import ACME, REVOKED, enter, key_gate, opened
from tests.gateway.stories import fixed
from tests.house import House, house


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(linear_spec(), words_spec(), gate=key_gate(lambda tenant, model: model != "hidden")) as running:
        yield running


@pytest.fixture
def page(browser: Any, served: House) -> Iterator[Any]:
    with opened(browser, f"http://{served.http}/") as page:
        yield page


def kept(page: Any) -> dict[str, str]:
    found: dict[str, str] = page.evaluate("({...sessionStorage})")
    return found


def test_a_page_without_a_key_asks_for_one_and_shows_nothing_else(page: Any) -> None:
    page.wait_for_selector("form.ask")
    assert page.evaluate("document.activeElement.id") == "key"
    assert page.get_attribute("#key", "type") == "password"
    assert page.is_hidden("#key-error")
    assert page.is_hidden("#model")
    assert page.locator("main > :visible").count() == 1
    assert page.is_hidden("a[href='/audit']")


def test_a_key_that_is_refused_is_said_and_the_next_one_works(page: Any) -> None:
    for wrong, reason in (
        (fixed(9), "does not accept this key"),
        (REVOKED, "expired or revoked"),
        ("hw_two words", "no blanks"),
        ("  ", "Type or paste a key"),
    ):
        enter(page, wrong)
        page.get_by_text(reason).wait_for()
        assert page.get_attribute("#key-error", "role") == "alert"
        assert kept(page) == {}
    enter(page, ACME)
    page.wait_for_selector("#model:not([hidden])")
    assert page.locator("form.ask").count() == 0


def test_with_a_key_the_page_works_and_the_code_that_it_shows_does_too(page: Any, tmp_path: Path) -> None:
    enter(page, ACME)
    for model, input_field in (("linear", None), ("words", "#fields textarea")):
        page.locator(f"input[value='{model}']").check(force=True)
        if input_field is not None:
            page.fill(input_field, "tea time")
        page.click("#run")
        page.wait_for_selector("#answer:not([hidden])")
        page.locator("#outputs > *").first.wait_for()
        assert page.locator("#outputs .alarm").count() == 0
        for which in ("curl", "python"):
            line = page.locator(f"#{which}").text_content()
            command = ["bash", "-c", line] if which == "curl" else [sys.executable, "-c", line]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
                env={"PATH": "/usr/bin:/bin", "HEADWAY_KEY": ACME.text},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "credential" not in done.stdout


def test_the_key_is_in_the_session_only_and_never_in_the_page_or_an_address(page: Any, served: House) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    enter(page, ACME)
    page.wait_for_selector("#model:not([hidden])")
    page.click("#run")
    page.wait_for_selector("#answer:not([hidden])")
    assert kept(page) == {"headway-key": ACME.text}
    assert page.evaluate("localStorage.length") == 0
    assert page.context.cookies() == []
    secret = ACME.text.rsplit("_", 2)[1]
    assert secret not in page.content()
    assert secret not in page.evaluate(
        "[...document.querySelectorAll('input, textarea')].map((one) => one.value).join()"
    )
    assert not [address for address in (*addresses, page.url) if secret in address]
    assert any("/v2/models/" in address for address in addresses), "no request was sent"
    other = page.context.new_page()
    other.goto(f"http://{served.http}/")
    other.wait_for_selector("form.ask")  # another tab is another session


def test_the_key_outlives_a_reload_until_it_is_forgotten(page: Any) -> None:
    enter(page, ACME)
    page.wait_for_selector("#model:not([hidden])")
    page.reload()
    page.wait_for_selector("#model:not([hidden])")
    page.get_by_role("button", name="Forget key").click()
    page.wait_for_selector("form.ask")
    assert kept(page) == {}
    assert page.locator("#forget").count() == 0
    assert page.is_hidden("#model")


def test_a_key_that_ends_while_the_page_is_open_is_asked_for_again_and_the_request_is_sent_then(page: Any) -> None:
    enter(page, ACME)
    page.wait_for_selector("#model:not([hidden])")
    page.evaluate("key => sessionStorage.setItem('headway-key', key)", REVOKED.text)
    page.click("#run")
    page.get_by_text("does not accept this key").wait_for()
    enter(page, ACME)
    page.wait_for_selector("#answer:not([hidden])")
    assert page.locator("#outputs .alarm").count() == 0


def test_the_link_to_the_openapi_document_leads_there_with_the_key(page: Any) -> None:
    enter(page, ACME)
    page.wait_for_selector("#model:not([hidden])")
    page.get_by_role("link", name="OpenAPI").click()
    page.wait_for_url("blob:**")
    assert '"openapi"' in page.inner_text("body")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768])
def test_the_form_fits_a_narrow_screen(browser: Any, served: House, width: int, scheme: str) -> None:
    with opened(
        browser, f"http://{served.http}/", viewport={"width": width, "height": 700}, color_scheme=scheme
    ) as page:
        enter(page, "nonsense" * 40)
        page.get_by_text("does not accept this key").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_pages_are_open_to_everybody_and_what_they_fetch_is_not(served: House) -> None:
    for path in ("/", "/try", "/dashboard", "/audit", "/pages/key.js"):
        answer = httpx.get(f"http://{served.http}{path}")
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "form-action 'none'" in answer.headers["content-security-policy"]
    assert httpx.get(f"http://{served.http}/openapi.json").status_code == 401


def test_without_keys_nothing_of_them_is_shown(browser: Any) -> None:
    with house(linear_spec()) as running, opened(browser, f"http://{running.http}/") as page:
        page.wait_for_selector("#model:not([hidden])")
        assert page.is_hidden("a[href='/audit']")
        assert page.locator("#forget, form.ask").count() == 0
        assert "HEADWAY_KEY" not in page.inner_text("main")
