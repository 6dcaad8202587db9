"""Prints what people should know, on standard error, and ends commands that cannot go on."""

from typing import NoReturn

import typer
from rich.console import Console

err = Console(stderr=True, soft_wrap=True)


def say(text: str) -> None:
    err.print(text, markup=False, highlight=False)


def warn(text: str) -> None:
    err.print(text, style="yellow", markup=False, highlight=False)


def fail(text: str) -> NoReturn:
    """Prints why something was not done, and exits with code 1."""
    _end(text, 1)


def mistake(text: str) -> NoReturn:
    """Prints a mistake of the command line or of a file that it names, and exits with code 2."""
    _end(text, 2)


def _end(text: str, code: int) -> NoReturn:
    err.print(text, style="red", markup=False, highlight=False)
    raise typer.Exit(code)
