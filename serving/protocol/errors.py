"""What a client got wrong, in words a client can act on. Knows no status codes: `api/faults.py` has the table.

BadMessage                  the bytes are not the message they claim to be
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
    """One tensor is unusable; `path` says which and where, as in `inputs[0].shape[1]`."""


class TooLarge(BadMessage):
    """More bytes than the limit, on the wire or after decompression."""


class UnknownRegion(BadMessage):
    """No shared memory region is registered under the name."""


class UnsupportedEncoding(BadMessage):
    """A Content-Encoding other than gzip, deflate or identity."""


class BadOutput(Exception):
    """The model's answer is not what it declared: nobody's request is at fault."""
