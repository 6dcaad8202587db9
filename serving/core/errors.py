"""The errors with which a request can fail. They carry no status codes: `api/faults.py` maps them for both protocols.

ServingError
├── ModelError            the model raised for this request; the other requests of the batch were answered
├── InvalidInput          the model's `prepare` rejected the input; the client has to correct it
│   └── NotOneAnswer      the model gives any number of answers, but the client asked for exactly one
├── LaneLost              the thread or device that ran the batch is gone; another replica may answer
│   └── BatchTimeout      the forward pass did not return within its time limit
├── FeaturesUnavailable   the feature store does not answer, and a feature that the model requires has no default
└── OutOfMemory           the device's memory is too small even for this request alone
"""


class ServingError(Exception):
    """The base of all errors with which a request can fail. `str(error)` may be sent to the client."""


class ModelError(ServingError):
    """The model raised while computing this request."""


class InvalidInput(ServingError):
    """The input has the right type and shape but is not usable, for example bytes that are not a JPEG image."""


class NotOneAnswer(InvalidInput):
    """The model gives any number of answers, but the request was sent by a method that returns exactly one."""


class LaneLost(ServingError):
    """The lane that ran the request is unusable. Retrying is safe because inference has no side effects."""


class BatchTimeout(LaneLost):
    """The forward pass did not return within the model's time limit; the lane is abandoned."""


class FeaturesUnavailable(ServingError):
    """Features that the model requires cannot be read now. A retry may succeed."""


class OutOfMemory(ServingError):
    """The request does not fit into the device's memory, not even alone."""
