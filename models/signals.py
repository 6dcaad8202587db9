"""Ignores signal handlers that a model's factory sets: it does not run in the main thread, and the server handles
signals."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

_lock = threading.Lock()  # models may be loaded in several threads; each restores the original function


@contextmanager
def signals_left_alone(model: str) -> Iterator[None]:
    """Makes `signal.signal` log a warning instead of raising when it is called outside the main thread."""

    def set_handler(number: int, handler: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return real(number, handler)
        log.warning(
            "model %s: a handler for %s is ignored: the server handles signals", model, signal.Signals(number).name
        )
        return signal.getsignal(number)

    with _lock:
        real = signal.signal
        signal.signal = set_handler  # type: ignore[assignment]
        try:
            yield
        finally:
            signal.signal = real
