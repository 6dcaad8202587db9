"""Errors of messages, with texts that a client can act on. Status codes are in the table of `api/faults.py`.

BadMessage                  the bytes are not a valid message
├── BadTensor               one tensor's datatype, shape or data does not fit; starts with the field's path
├── TooLarge                more bytes than this server takes
├── UnknownRegion           no shared memory region is registered under the name
└── UnsupportedEncoding     a Content-Encoding this server cannot undo
BadOutput                   what the model returned does not match its own declaration
"""


class BadMessage(Exception):
    """The request cannot be understood. `str(error)` is meant for the client."""

    def __init__(self, fact: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {fact}" if path else fact)


class BadTensor(BadMessage):
    """One tensor is invalid; `path` names the field, as in `inputs[0].shape[1]`."""


class TooLarge(BadMessage):
    """More bytes than the limit, on the wire or after decompression."""


class UnknownRegion(BadMessage):
    """The name of a shared memory region that is not registered."""


class UnsupportedEncoding(BadMessage):
    """A Content-Encoding other than gzip, deflate or identity."""


class BadOutput(Exception):
    """The model's outputs do not match its own declaration. The model is at fault, not a request."""
