"""The page to try a model, in a real browser: its form, its answers, and the code that it shows."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.reference import accumulate_spec, repeat_spec, words_spec
from tests.api.shown_models import CLASSIFIER, EMBEDDER, NUMBERS
from tests.house import House, house


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    failing = repeat_spec(options={"raise_on_value": 13})
    with house(CLASSIFIER, EMBEDDER, NUMBERS, words_spec(), failing, accumulate_spec()) as running:
        yield running


@pytest.fixture
def page(browser, served: House) -> Iterator[object]:
    """A browser page that shows the page to try a model. An error in its scripts fails the test."""
    page = browser.new_page()
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if is_problem(said) else None)
    page.goto(f"http://{served.http}/")
    page.wait_for_selector("#model:not([hidden])")
    yield page
    page.close()
    assert not problems


def is_problem(said) -> bool:
    return said.type == "error" and "Failed to load resource" not in said.text  # a refusal is a status like others


def choose(page, model: str) -> None:
    page.locator(f"input[value='{model}']").check(force=True)


def run(page) -> str:
    page.evaluate("document.getElementById('answer').hidden = true")  # what stands there is the answer before
    page.click("#run")
    page.wait_for_selector("#answer:not([hidden])")
    return page.inner_text("#outputs")


def said_by(page, which: str, folder: Path) -> str:
    """Runs the code that the page shows and returns its output."""
    line = page.locator(f"#{which}").text_content()
    command = ["bash", "-c", line] if which == "curl" else [sys.executable, "-c", line]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_picture_is_dropped_and_its_label_shown_with_the_best_classes(page, tmp_path: Path) -> None:
    choose(page, "classifier")
    assert page.is_disabled("#run")
    picture = tmp_path / "it's a pet.png"
    picture.write_bytes(b"\x89PNG no real one" + bytes(range(256)))
    page.set_input_files("#fields input[type=file]", picture)
    answer = run(page)
    expected = ("cat", "dog: small", "fish")[picture.stat().st_size % 3]
    assert page.inner_text("#outputs .big") == expected
    assert "80.0 %" in answer
    assert "10.0 %" in answer
    assert "queue" in page.inner_text("#timing")
    for which in ("curl", "python"):
        assert expected in said_by(page, which, tmp_path)


def test_a_sentence_is_typed_and_the_vector_shown(page, tmp_path: Path) -> None:
    choose(page, "embedder")
    assert page.input_value("#fields textarea") == 'It\'s noon — "tea"?'  # the owner's example
    for text in ("It's $HOME \\ “quoted”\nin two lines", 'It\'s noon — "tea"?'):
        page.fill("#fields textarea", text)
        answer = run(page)
        assert text.upper() in answer
        assert "values 64" in answer
        assert page.locator("svg.shape rect").count() == 64
        assert "LOUD" not in answer or "loud" in answer
        for which in ("curl", "python"):
            printed = said_by(page, which, tmp_path)
            assert "NOON" in printed or "$HOME" in printed


def test_numbers_go_as_typed_and_a_table_comes_back(page, tmp_path: Path) -> None:
    choose(page, "numbers")
    boxes = page.locator("input[inputmode=decimal]")
    for index, value in enumerate((".5", "-2.", "+3e1")):
        boxes.nth(index).fill(value)
    page.check("#fields input[type=checkbox]")
    page.fill("textarea.numbers", "9007199254740993, -1")  # one more than a browser's number can tell apart
    answer = run(page)
    assert "NaN" in answer
    assert "90" in answer
    assert "9007199254740992" in answer
    assert "true" in answer
    assert "is binary data" in answer
    python = said_by(page, "python", tmp_path)
    assert "9007199254740992" in python
    assert "True" in python
    said_by(page, "curl", tmp_path)
    assert b"9007199254740992" in (tmp_path / "answer.bin").read_bytes()
    (tmp_path / "half.raw").write_bytes(b"\x00\x3c" * 4)
    page.set_input_files("#fields input[type=file]", tmp_path / "half.raw")
    run(page)
    assert "1." in said_by(page, "python", tmp_path).splitlines()[-1]


def test_what_is_missing_or_wrong_is_said_beside_the_button(page) -> None:
    choose(page, "numbers")
    page.locator("input[inputmode=decimal]").first.fill("four")
    assert "is not a number" in page.inner_text("#missing")
    assert page.is_disabled("#run")
    page.locator("input[inputmode=decimal]").first.fill("4")
    page.fill("textarea.numbers", "")
    assert "at least 1" in page.inner_text("#missing")


def test_the_answers_of_a_model_that_generates_grow_as_they_come(page, tmp_path: Path) -> None:
    choose(page, "words")
    page.fill("#fields textarea", 'It\'s "tea" time')
    page.click("#run")
    page.get_by_text("3 answers").wait_for()
    assert page.inner_text("#outputs .said").split() == ["It's", '"tea"', "time"]
    for which in ("curl", "python"):
        assert said_by(page, which, tmp_path).count("model_name") == 3
    choose(page, "repeat")
    page.fill("#fields textarea", "7, 13, 8")
    page.click("#run")
    page.wait_for_selector("#outputs .alarm")
    assert page.inner_text("#outputs .said").strip() == "7"
    assert "told to fail on 13" in page.inner_text("#outputs .alarm")


def test_a_model_with_state_goes_on_until_it_is_begun_anew(page, tmp_path: Path) -> None:
    choose(page, "accumulate")
    page.fill("input[inputmode=decimal]", "4")
    assert '"sequence_start":true' in page.inner_text("#curl")
    assert said_by(page, "python", tmp_path) == "sum [[4]]\n"
    for total in ("4", "8"):
        page.click("#run")
        page.locator("#outputs .big").get_by_text(total, exact=True).wait_for()
    assert '"data":[12]' in said_by(page, "curl", tmp_path)
    page.click("#anew")
    assert '"data":[4]' in said_by(page, "curl", tmp_path)


def test_the_servers_refusal_is_shown_in_its_own_words(page) -> None:
    choose(page, "numbers")
    page.fill("textarea.numbers", "99999999999999999999")
    assert run(page).startswith("400: inputs[2].data")
    assert page.locator("#outputs .alarm").count() == 1


@pytest.mark.parametrize("width", [320, 375, 768])
def test_nothing_sticks_out_on_a_narrow_screen(page, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for model in ("classifier", "embedder", "numbers"):
        choose(page, model)
        if model == "classifier":
            (tmp_path / ("a-file-with-a-very-long-name" * 4)).write_bytes(b"x")
            page.set_input_files("#fields input[type=file]", tmp_path / ("a-file-with-a-very-long-name" * 4))
        run(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_asks_nobody_but_this_server(browser, served: House) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://{served.http}/#embedder")
    page.wait_for_selector("#model:not([hidden])")
    assert page.inner_text("#name") == "embedder"
    assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {served.http}
    page.close()


def test_pages_are_files_of_the_package_and_forbid_foreign_scripts(served: House) -> None:
    for path, kind in (("/", "text/html"), ("/try", "text/html"), ("/pages/house.css", "text/css")):
        answer = httpx.get(f"http://{served.http}{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert httpx.get(f"http://{served.http}/pages/../front.py").status_code == 404
    assert httpx.post(f"http://{served.http}/").status_code == 405
