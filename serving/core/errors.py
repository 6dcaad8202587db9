"""What can go wrong while serving, by fact and not by status code (the wires translate in `api/faults.py`).

ServingError
├── ModelError            the model raised for this request; its batch-mates were answered
├── InvalidInput          the model's own `prepare` refused the input: the client's to mend
│   └── NotOneAnswer      the model gives any number of answers, and exactly one was asked for
├── LaneLost              the thread or device that ran the batch is gone; another replica may answer
├── BatchTimeout          the model did not come back within its limit
└── OutOfMemory           the device has no room even for this request alone
"""


class ServingError(Exception):
    """Base of everything a request can fail with. `str(error)` may be shown to the client."""


class ModelError(ServingError):
    """The model raised while computing this request."""


class InvalidInput(ServingError):
    """The input has the right type and shape, and still cannot be used (a JPEG that is none, say)."""


class NotOneAnswer(InvalidInput):
    """The model gives any number of answers to a request; this one was asked for in a way that knows exactly one."""


class LaneLost(ServingError):
    """The lane that ran the request is unusable. Safe to try again: inference has no side effects."""


class BatchTimeout(LaneLost):
    """The forward pass did not return within the model's limit; the lane is given up."""


class OutOfMemory(ServingError):
    """Even alone the request does not fit into the device's memory."""
