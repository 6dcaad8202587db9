"""Asks a running server for what commands need, with a credential, and tells why it refused."""

import http.client
import json
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from urllib.request import Request

from serving.direct import ask
from serving.names import model_path
from serving.operate.printing import fail


class ServerRefused(Exception):
    """The server refused a request. The text is the server's. status: of its answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def asked(url: str, key: str, body: bytes | None = None, *, patience_s: float) -> Any:
    """Returns the JSON that the server answers. body: None for GET. Raises ServerRefused and OSError."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with ask(Request(url, data=body, headers=headers), timeout_s=patience_s) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServerRefused(_reason(error), error.code) from None
    except urllib.error.URLError as error:
        raise OSError(error.reason) from error
    except (ValueError, http.client.HTTPException) as error:
        raise OSError(f"no Headway answers there ({error})") from error


def address_of(url: str, model: str) -> str:
    """Returns the address of a model. url: of the server, with or without `http://`."""
    return f"{(url if '://' in url else f'http://{url}').rstrip('/')}{model_path(quote(model, safe=''))}"


@contextmanager
def failures_printed(url: str) -> Iterator[None]:
    """Prints why a server did not do what it was asked, and exits with code 1."""
    try:
        yield
    except ServerRefused as refusal:
        fail(str(refusal))
    except OSError as error:
        fail(f"{url} does not answer: {error}")


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return str(json.load(error)["error"])
        except (ValueError, LookupError, TypeError):
            return str(error)
