"""Answers requests that the front makes of a version before it is released: no client asked, nothing is recorded.

They come through Ray Serve's handle and not through a door: no gate, no quota and no witness knows of them.
"""

import logging
from dataclasses import replace

from serving.api.dispatch import Dispatch
from serving.api.faults import INTERNAL, Fault, fault_of_error, fault_of_outcome
from serving.api.served import ServedModel
from serving.core.backend import Backend
from serving.core.outcome import Completed

logger = logging.getLogger("ray.serve")
UNTESTED = Fault(501, "this model sends any number of answers or keeps a state, so no single answer can be compared")


class Trial:
    """A model without what stands between it and its clients. backend: computes, without a record of requests."""

    def __init__(self, served: ServedModel, backend: Backend) -> None:
        self._untested = served.decoupled or served.stateful
        self._dispatch = Dispatch(replace(served, backend=backend, witnesses=(), of_failures=None, quota=None))

    async def answer(self, body: bytes) -> tuple[int, bytes]:
        """Returns the status and the body of the answer to an infer request in JSON."""
        if self._untested:
            return _refusal(UNTESTED)
        try:
            plan, submitted = self._dispatch.submit_read(self._dispatch.read(body, None))
            outcome = await submitted
            if type(outcome) is not Completed:
                return _refusal(fault_of_outcome(outcome))
            _, content = self._dispatch.reply(plan, outcome)
            return 200, content
        except Exception as error:
            fault = fault_of_error(error)
            if fault is INTERNAL:
                logger.error("answering a request of the front failed because of a bug in the server", exc_info=error)
            return _refusal(fault)


def _refusal(fault: Fault) -> tuple[int, bytes]:
    return fault.status, fault.body
