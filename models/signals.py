"""Signals while a model is loaded: its factory does not run in the main thread, and signals are the server's own."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

_lock = threading.Lock()  # models may be loaded in several threads; each puts back what it found


@contextmanager
def signals_left_alone(model: str) -> Iterator[None]:
    """Meanwhile `signal.signal` outside of the main thread says in the log that it does nothing. It would raise."""

    def set_handler(number: int, handler: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return real(number, handler)
        log.warning(
            "model %s: a handler for %s is left out: signals are the server's", model, signal.Signals(number).name
        )
        return signal.getsignal(number)

    with _lock:
        real = signal.signal
        signal.signal = set_handler  # type: ignore[assignment]
        try:
            yield
        finally:
            signal.signal = real
