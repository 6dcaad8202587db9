"""Real text and real photographs of any size, drawn with a seeded generator."""

import random
from functools import cache
from io import BytesIO
from pathlib import Path

FOLDER = Path(__file__).parent / "samples"


def sentence(words: int, generator: random.Random) -> bytes:
    """Returns this many consecutive words of English prose from a random place. The text is repeated if it is too
    short."""
    text = _prose()
    start = generator.randrange(len(text))
    return " ".join(text[(start + offset) % len(text)] for offset in range(words)).encode()


def photograph(side: int, generator: random.Random) -> bytes:
    """Returns a JPEG with `side` pixels on its longer side: a random part of a photograph, so that the bytes of two
    JPEGs differ. Raises ValueError if pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError("images need the package pillow: pip install pillow") from error
    whole = Image.open(BytesIO(_photograph())).convert("RGB")
    width, height = (round(size * generator.uniform(0.7, 1.0)) for size in whole.size)
    left, top = generator.randint(0, whole.width - width), generator.randint(0, whole.height - height)
    scale = side / max(width, height)
    part = whole.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), box=(left, top, left + width, top + height)
    )
    made = BytesIO()
    part.save(made, "JPEG", quality=85)
    return made.getvalue()


@cache
def _prose() -> list[str]:
    return (FOLDER / "prose.txt").read_text(encoding="utf-8").split()


@cache
def _photograph() -> bytes:
    return (FOLDER / "flower.jpg").read_bytes()
