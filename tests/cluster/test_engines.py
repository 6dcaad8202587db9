"""Tests the error if a model cannot be opened: one sentence that is fit for clients, and the traceback in the log."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.loading import ModelNotLoadable
from models.spec import ModelSpec, TensorSpec
from serving.cluster.replica.engines import open_engine
from serving.core.outcome import Completed, Reason, Rejected

SECRET = "hunter2-and-more"


def refusal(tmp_path: Path, code: str, **fields: Any) -> ModelNotLoadable:
    """Returns the error of opening a model whose module has this code, with the factory `make`."""
    (tmp_path / "project.py").write_text(code)
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
    options = {"token": SECRET} | fields.pop("options", {})
    spec = ModelSpec(
        name="m", factory="project:make", options=options, inputs=(x,), outputs=(x,), folder=str(tmp_path), **fields
    )
    with pytest.raises(ModelNotLoadable) as caught:
        asyncio.run(open_engine(spec))
    return caught.value


@pytest.fixture(autouse=True)
def _each_its_own_project(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "project", raising=False)


RAISING = "def make(token):\n    raise ValueError(f'no access with {token}')\n"


def test_what_a_factory_raises_is_a_sentence_with_its_line_and_without_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        told = refusal(tmp_path, RAISING)
    assert str(told) == "ValueError: no access with <options.token> (project.py, line 2)"
    assert told.__cause__ is None
    assert told.__context__ is None, "what is chained is printed too"
    (message,) = caplog.messages
    assert message.startswith("model m cannot be served\nTraceback")
    assert 'project.py", line 2, in make' in message
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def make(): ...", "does not take the options token: got an unexpected keyword argument 'token'"),
        ("def make(token, depth): ...", "missing a required argument: 'depth'; its parameters are: token, depth"),
        ("def make(token): return {'token': token}", "project:make made a dict: neither a torch.nn.Module nor"),
        ("import sys\ndef make(token): sys.exit(token)", r"SystemExit: <options.token> \(project.py, line 2\)"),
        ("def make(token): raise KeyError(token)", r"KeyError: '<options.token>' \(project.py, line 1\)"),
        ("def make(token): open('/' + token)", "FileNotFoundError: .*'/<options.token>'"),
        ("def make(token): assert not token", r"^AssertionError \(project.py, line 1\)"),
        ("syntax error", "SyntaxError: invalid syntax"),
        ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module' \(project.py, line 1\)"),
        (
            "from torch import nn\ndef make(token):\n    class M(nn.Module):\n"
            "        def forward(self, x):\n            raise RuntimeError(token)\n    return M()",
            r"RuntimeError: <options.token> \(project.py, line 5\)",
        ),
    ],
)
def test_whatever_goes_wrong_is_a_sentence_without_a_secret(code: str, words: str, tmp_path: Path) -> None:
    told = refusal(tmp_path, code)
    assert SECRET not in str(told)
    with pytest.raises(ModelNotLoadable, match=words):
        raise told


def test_the_state_of_a_generating_model_has_no_waiting_lines(tmp_path: Path) -> None:
    told = refusal(tmp_path, RAISING, decoupled=True)
    assert str(told) == "ValueError: no access with <options.token> (project.py, line 2)"


SIGNALS = """
import signal
from signal import signal as set_handler
import torch

def handler(*_): ...
at_import = signal.signal(signal.SIGUSR2, handler)

class Scorer(torch.nn.Module):
    def __init__(self, token):
        super().__init__()
        self.before = signal.signal(signal.SIGTERM, handler)
        set_handler(signal.SIGINT, handler)
    def forward(self, x):
        return 2 * x
make = Scorer
"""


def test_a_factory_that_sets_signal_handlers_is_served_and_the_handlers_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    real = signal.signal
    (tmp_path / "project.py").write_text(SIGNALS)
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
    spec = ModelSpec(
        name="m", factory="project:make", options={"token": ""}, inputs=(x,), outputs=(x,), folder=str(tmp_path)
    )

    async def story() -> None:
        engine = await open_engine(spec)
        assert engine.is_ready()
        await engine.drain(timeout_s=1)
        engine.close()

    with caplog.at_level(logging.WARNING, logger="models"):
        asyncio.run(story())
    assert threading.current_thread() is threading.main_thread()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)] == before
    assert signal.signal is real
    told = [message for message in caplog.messages if "handler" in message]
    assert told == [
        f"model m: a handler for {name} is ignored: the server handles signals"
        for name in ("SIGUSR2", "SIGTERM", "SIGINT")
    ]


SIXTEEN_AT_MOST = """
import torch

class Picky(torch.nn.Module):
    def forward(self, x):
        if len(x) > 16:
            raise RuntimeError("CUDNN-like: batch too large")
        return 2 * x
make = Picky
"""


def test_a_model_that_fails_above_some_rows_is_served_and_larger_requests_are_refused(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(SIXTEEN_AT_MOST)
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
    spec = ModelSpec(name="m", factory="project:make", inputs=(x,), outputs=(x,), folder=str(tmp_path))
    said: list[str] = []

    async def story() -> None:
        engine: Any = await open_engine(spec, report=said.append)
        answered = await engine.submit({"x": np.ones((16, 2), np.float32)}, rows=16)
        refused = await engine.submit({"x": np.ones((17, 2), np.float32)}, rows=17)
        assert isinstance(answered, Completed)
        assert isinstance(refused, Rejected)
        assert (refused.reason, refused.limit) == (Reason.TOO_LARGE, 16)
        await engine.drain(timeout_s=1)
        engine.close()

    asyncio.run(story())
    assert any("`limits.max_batch_rows: 16` in the settings says so without trying" in line for line in said)
