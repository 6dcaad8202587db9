"""Scenario files, and the errors for invalid ones."""

import random
from io import BytesIO
from pathlib import Path

import pytest

from loadtest.loading import load
from loadtest.samples import photograph, sentence
from loadtest.scenario import Scenario
from loadtest.spec import BadSpec

CLASS = """
from loadtest.scenario import Scenario, task

class Shop(Scenario):
    model = "text-embedder"
    think = "uniform(0.5, 2)"

    @task(3)
    def short(self):
        return {"text": [self.sentence(words=5)]}

    @task
    def long(self):
        return {"text": [self.sentence(words="lognormal(60, 0.3)")]}
"""


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_class_in_a_file_is_found_with_its_tasks_in_order(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, "shop.py", CLASS.replace("@task\n", "@task()\n")))
    assert scenario.model == "text-embedder"
    assert [(task.name, task.weight) for task in scenario.tasks()] == [("short", 3), ("long", 1)]


def test_task_may_be_written_without_brackets_as_in_locust(tmp_path: Path) -> None:
    assert [task.weight for task in load(written(tmp_path, "shop.py", CLASS)).tasks()] == [3, 1]


def test_a_toml_file_is_the_same_in_short(tmp_path: Path) -> None:
    text = 'model = "text-embedder"\nrate = 50\ntenants = {shop = 3}\n[tasks.fill]\nwords = "uniform(1, 9)"\nweight = 2'
    scenario = load(written(tmp_path, "shop.toml", text))
    assert (scenario.model, scenario.rate, scenario.tenants) == ("text-embedder", 50, {"shop": 3})
    assert [(task.name, task.weight) for task in scenario.tasks()] == [("fill", 2)]


def test_one_of_several_is_named_behind_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "two.py", CLASS + CLASS.replace("Shop", "Bank"))
    assert load(Path(f"{path}:Bank")).__name__ == "Bank"
    with pytest.raises(BadSpec, match="has Shop, Bank; name one"):
        load(path)
    with pytest.raises(BadSpec, match="has no Scenario 'Post'; it has Shop, Bank"):
        load(Path(f"{path}:Post"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratee = 5", "ratee: no such key; there are question, model"),
        ("rate = 'fast'", "rate: expected int or float, got 'fast'"),
        ("tasks = 3", "tasks: expected one or more tables"),
        ("[tasks.a]\nwords = 'many'", "tasks.a.words: no such kind 'many'"),
        ("[tasks.a]\ncolour = 1", "tasks.a.colour: no such key"),
        ("[tasks.a]\nweight = -1", "tasks.a.weight: must be a number and not negative"),
        ("think = 'uniform(3)'", "think: "),
        ("= 1", "shop.toml: "),
    ],
)
def test_a_mistake_in_a_toml_file_is_named_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        load(written(tmp_path, "shop.toml", text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "import nowhere_at_all", "cannot be imported: ModuleNotFoundError"),
        ("a.py", "x = 1", "has no Scenario"),
        ("a.txt", "", "expected a .py, .toml or .jsonl file"),
    ],
)
def test_a_file_that_holds_no_scenario_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        load(written(tmp_path, name, text))


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadSpec, match=r"there is no file /nowhere\.toml"):
        load(Path("/nowhere.toml"))


def test_a_scenario_without_a_task_is_refused() -> None:
    with pytest.raises(BadSpec, match="no method is marked with @task"):
        type("Idle", (Scenario,), {}).tasks()


@pytest.mark.parametrize("path", sorted(Path("loadtest/scenarios").glob("*.*")), ids=lambda path: path.name)
def test_every_scenario_that_ships_loads_and_says_which_question_it_answers(path: Path) -> None:
    if path.suffix in (".toml", ".py"):
        assert load(path).question


def test_sentences_have_the_asked_number_of_words_and_are_drawn_from_the_seed() -> None:
    assert len(sentence(400, random.Random(1)).split()) == 400
    assert sentence(9, random.Random(1)) == sentence(9, random.Random(1)) != sentence(9, random.Random(2))


def test_photographs_have_the_asked_size_and_differ() -> None:
    from PIL import Image

    first, second = (photograph(200, random.Random(seed)) for seed in (1, 2))
    assert first != second
    assert max(Image.open(BytesIO(first)).size) == 200
