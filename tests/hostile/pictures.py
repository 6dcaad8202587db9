"""Hostile pictures: those that unpack to gigabytes, are truncated or have false headers, and odd features of the
formats."""

import json
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from tests.hostile.http import exchange, head
from tests.hostile.inputs import MIB, Answer, Doors, Hostile, Send, seeded, words

KIND = "pictures"
READ = words("200")
UNREADABLE = words("400")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112


def asked(*contents: bytes | Callable[[], bytes]) -> Send:
    async def send(doors: Doors) -> Answer:
        pictures = [content if isinstance(content, bytes) else content() for content in contents]
        data = b"".join(struct.pack("<I", len(one)) + one for one in pictures)
        size = {"binary_data_size": len(data)}
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(pictures), 1], "parameters": size}
        content = json.dumps({"inputs": [tensor]}).encode()
        lengths = {"Inference-Header-Content-Length": str(len(content))}
        return await exchange(doors.http, [head("pictures", len(content) + len(data), lengths), content, data])

    return send


def corpus(size: int) -> list[Hostile]:
    cases = {**_bombs(), **_broken(), **_odd(), **_tiff(), **_webp(), **_others()}
    return [Hostile(name, KIND, asked(content), right) for name, (content, right) in cases.items()]


Cases = dict[str, tuple[bytes | Callable[[], bytes], frozenset[str]]]


def image(mode: str = "RGB", size: tuple[int, int] = (64, 48), colour: Any = 90) -> Image.Image:
    return Image.new(mode, size, colour if mode not in ("RGB", "YCbCr") else (90, 120, 60))


def saved(picture: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, rows: int = 0, more: bytes = b"", interlace: int = 0
) -> bytes:
    """Returns a hand-made PNG. rows: the number of bytes of pixels, all 0, that it really contains. more: chunks before
    them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    pixels = chunk(b"IDAT", zlib.compress(bytes(rows), 9))
    return SIGNATURE + chunk(b"IHDR", header) + more + pixels + chunk(b"IEND", b"")


def framed(kind: str, count: int) -> bytes:
    """Returns a picture with `count` frames, each of another colour."""
    more = [Image.new("L", (64, 48), number % 256) for number in range(1, count)]
    return saved(image("L"), kind, save_all=True, append_images=more)


def tiff(width: int, height: int, data: bytes = b"", **changes: int) -> bytes:
    """Returns a hand-made TIFF, grey in one strip. changes: values of its tags, by number after a _."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 134, 277: 1, 278: height, 279: len(data)}
    tags |= {int(name[1:]): value for name, value in changes.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(134, b"\0") + data


def _tiff() -> Cases:
    looped, many_values = bytearray(tiff(8, 8, bytes(64))), bytearray(tiff(8, 8, bytes(64)))
    looped[10 + 9 * 12 : 14 + 9 * 12] = struct.pack("<I", 8)
    many_values[10 + 5 * 12 + 4 : 10 + 5 * 12 + 8] = b"\xff\xff\xff\x7f"
    deflated = zlib.compress(bytes(200 * MIB), 9)
    modes = {mode: saved(image(mode), "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
    coded = {
        name: saved(image(), "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    }
    return {
        "TIFF by hand": (tiff(8, 8, bytes(64)), READ),
        "TIFF of 60,000 squared": (tiff(60_000, 60_000, bytes(64)), UNREADABLE),
        "TIFF of 2^32 - 1 squared": (tiff(2**32 - 1, 2**32 - 1), UNREADABLE),
        "TIFF of no width": (tiff(0, 8), UNREADABLE),
        "TIFF with pixels elsewhere": (tiff(8, 8, bytes(64), _273=2**31), UNREADABLE),
        "TIFF with more pixels than there are": (tiff(7000, 7000, bytes(64)), UNREADABLE),
        "TIFF of one strip that unpacks to 200 MiB": (lambda: tiff(8, 8, deflated, _259=8), READ),
        "TIFF of 64 bits a pixel": (tiff(8, 8, bytes(512), _258=64), UNREADABLE),
        "TIFF of a coding that is none": (tiff(8, 8, bytes(64), _259=999), UNREADABLE),
        "TIFF of LZW rubbish": (tiff(64, 64, seeded("lzw").randbytes(2000), _259=5), UNREADABLE),
        "TIFF of fax rubbish": (tiff(64, 64, seeded("fax").randbytes(2000), _259=4, _258=1), READ),
        "TIFF of JPEG rubbish": (tiff(64, 64, seeded("jpeg").randbytes(2000), _259=7), UNREADABLE),
        "TIFF whose directory is followed by itself": (bytes(looped), READ),
        "TIFF with a value of 2^31 numbers": (bytes(many_values), UNREADABLE),
        "TIFF of 200 frames": (framed("TIFF", 200), READ),
        "TIFF cut off": (saved(image(), "TIFF")[:200], UNREADABLE),
        **{f"TIFF of mode {mode}": (content, READ) for mode, content in modes.items()},
        "TIFF of fractions": (saved(image("F"), "TIFF"), UNREADABLE),
        **{f"TIFF of {name}": (content, READ) for name, content in coded.items()},
    }


def _webp() -> Cases:
    whole = saved(image(), "WEBP")
    lossless = saved(image(), "WEBP", lossless=True)
    largest = bytearray(lossless)
    largest[21:25] = struct.pack("<I", 16_383 | 16_383 << 14)  # the size, 14 bits each
    return {
        "WebP": (whole, READ),
        "WebP of 16,384 squared": (bytes(largest), UNREADABLE),
        "WebP of 7,000 squared": (lambda: saved(image("L", (7000, 7000)), "WEBP", lossless=True, method=0), UNREADABLE),
        "WebP of just what is allowed": (
            lambda: saved(image(size=(4000, 4000)), "WEBP", lossless=True, method=0),
            READ,
        ),
        "WebP of 200 frames": (framed("WEBP", 200), READ),
        "WebP cut off": (whole[: len(whole) // 2], UNREADABLE),
        "WebP of 4 GiB, it says": (whole[:4] + b"\xff\xff\xff\xff" + whole[8:], UNREADABLE),
        "WebP of rubbish": (whole[:20] + seeded("webp").randbytes(500), UNREADABLE),
    }


def _bombs() -> Cases:
    def scans(count: int) -> bytes:
        """Returns a progressive JPEG that repeats its last scan; each scan is a pass over the whole picture."""
        content = saved(image(size=(4000, 4000)), "JPEG", progressive=True)
        last = content.rindex(b"\xff\xda")
        return content[:last] + content[last:-2] * count + b"\xff\xd9"

    def sized(width: int, height: int) -> bytes:
        """Returns a JPEG whose header states a size that its picture does not have."""
        content = bytearray(saved(image(), "JPEG"))
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
        return bytes(content)

    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 * MIB), 9))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200 * MIB), 9))
    return {
        "PNG of 30,000 x 30,000": (lambda: png(30_000, 30_000, rows=MIB), UNREADABLE),
        "PNG of just what is allowed": (lambda: png(7000, 7000, colour=0, rows=7001 * 7000), READ),
        "PNG of just what is allowed, in colours": (lambda: png(7000, 7000, rows=21_001 * 7000), READ),
        "JPEG of just what is allowed, in scans": (
            lambda: saved(image(size=(7000, 7000)), "JPEG", progressive=True),
            READ,
        ),
        "PNG of 2^31 - 1 squared": (png(2**31 - 1, 2**31 - 1), UNREADABLE),
        "PNG of 2^32 - 1 squared": (png(2**32 - 1, 2**32 - 1), UNREADABLE),
        "PNG of 50 million by 1": (lambda: png(50_000_000, 1, colour=0, rows=50_000_001), READ),
        "PNG with more pixels than it says": (lambda: png(10, 10, rows=200 * MIB), READ),
        "PNG with a comment of 200 MiB": (lambda: png(10, 10, rows=310, more=text), UNREADABLE),
        "PNG with a profile of 200 MiB": (lambda: png(10, 10, rows=310, more=profile), UNREADABLE),
        "PNG with 10,000 comments": (lambda: png(10, 10, rows=310, more=chunk(b"tEXt", b"a\0b") * 10_000), READ),
        "PNG with 100,000 empty pieces of pixels": (
            lambda: png(10, 10, rows=310, more=chunk(b"IDAT", b"") * 100_000),
            READ,
        ),
        "PNG of 16 bits": (lambda: png(3000, 3000, depth=16, rows=(6 * 3000 + 1) * 3000), READ),
        "PNG interlaced, of 2,000 squared": (lambda: png(2000, 2000, interlace=1, rows=13 * MIB), READ),
        "JPEG of 65,500 squared": (lambda: sized(65_500, 65_500), UNREADABLE),
        "JPEG of 7,000 squared that holds 64 x 48": (lambda: sized(7000, 7000), READ),
        "JPEG of 65,000 by 1": (lambda: saved(image(size=(65_000, 1)), "JPEG"), READ),
        "JPEG with one scan 100 times": (lambda: scans(100), READ),
        "PNG whose tail is 8 MiB of nothing": (lambda: saved(image()) + bytes(8 * MIB), READ),
        "a picture among 8 MiB of comments": (
            lambda: b"\xff\xd8" + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 128 + saved(image(), "JPEG")[2:],
            READ,
        ),
    }  # fmt: skip


def _broken() -> Cases:
    png_file, jpeg_file = saved(image()), saved(image(), "JPEG")
    noise = seeded("pictures")
    flipped = bytearray(jpeg_file)
    for _ in range(40):
        flipped[noise.randrange(20, len(flipped))] ^= 1 << noise.randrange(8)
    return {
        "nothing": (b"", UNREADABLE),
        "a byte": (b"\x89", UNREADABLE),
        "only PNG's signature": (SIGNATURE, UNREADABLE),
        "only JPEG's first marker": (b"\xff\xd8", UNREADABLE),
        "random bytes": (noise.randbytes(10_000), UNREADABLE),
        "PNG cut in its pixels": (png_file[:-30], UNREADABLE),
        "PNG cut in its header": (png_file[:20], UNREADABLE),
        "JPEG cut in its pixels": (jpeg_file[: len(jpeg_file) * 2 // 3], UNREADABLE),
        "JPEG cut in its header": (jpeg_file[:100], UNREADABLE),
        "JPEG of flipped bits": (bytes(flipped), UNREADABLE),
        "PNG of no width": (png(0, 10), UNREADABLE),
        "PNG of no height": (png(10, 0), UNREADABLE),
        "PNG without pixels": (png(10, 10), UNREADABLE),
        "PNG with wrong checksums": (png_file.replace(b"IDAT", b"IDAT\0", 1), UNREADABLE),
        "PNG of a depth that is none": (png(10, 10, depth=7, rows=310), UNREADABLE),
        "PNG of colours that are none": (png(10, 10, colour=5, rows=310), UNREADABLE),
        "PNG of a palette that is missing": (png(10, 10, colour=3, rows=110), UNREADABLE),
        "PNG with a chunk of 2 GiB": (SIGNATURE + b"\x7f\xff\xff\xffIHDR", UNREADABLE),
        "PNG with a negative chunk": (SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(20), UNREADABLE),
        "JPEG with a segment longer than itself": (jpeg_file[:2] + b"\xff\xe1\xff\xff" + jpeg_file[2:], UNREADABLE),
        "JPEG with a segment of no length": (jpeg_file[:2] + b"\xff\xe1\0\0" + jpeg_file[2:], READ),
    }


def _odd() -> Cases:
    def turned(value: Any, kind: str = "JPEG") -> bytes:
        exif = Image.Exif()
        exif[ORIENTATION] = value
        return saved(image(), kind, exif=exif)

    def with_exif(content: bytes) -> bytes:
        segment = b"Exif\0\0" + content
        jpeg_file = saved(image(), "JPEG")
        return jpeg_file[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg_file[2:]

    entry = struct.pack("<HHII", ORIENTATION, 3, 1, 6)
    loop = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    many = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 5000) + entry * 5000
    palette = image("P", colour=3)
    palette.putpalette(bytes(range(256)) * 3)
    modes = {mode: saved(image(mode)) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")}
    return {
        **{f"EXIF orientation {value}": (turned(value), READ) for value in range(10)},
        **{f"PNG's orientation {value}": (turned(value, "PNG"), READ) for value in (3, 6)},
        "EXIF of rubbish": (with_exif(seeded("exif").randbytes(500)), READ),
        "EXIF of nothing": (with_exif(b""), READ),
        "EXIF that leads to itself": (with_exif(loop), READ),
        "EXIF of 5,000 orientations": (with_exif(many[:65_000]), READ),
        "EXIF beyond its end": (with_exif(b"II*\0" + struct.pack("<I", 2**31)), READ),
        **{f"PNG of mode {mode}": (content, READ) for mode, content in modes.items()},
        "PNG of a palette with transparency": (saved(palette, transparency=bytes(range(256))), READ),
        "PNG of a palette with one clear colour": (saved(palette, transparency=3), READ),
        "PNG of a palette of one colour, and others used": (
            png(10, 10, colour=3, rows=110, more=chunk(b"PLTE", bytes(3))), READ,
        ),
        "PNG of a palette of 2 bytes": (png(10, 10, colour=3, rows=110, more=chunk(b"PLTE", b"\1\2")), READ),
        "PNG with more transparency than colours": (
            png(10, 10, colour=3, rows=110, more=chunk(b"PLTE", bytes(3)) + chunk(b"tRNS", bytes(300))),
            UNREADABLE,
        ),
        "PNG of gamma 0": (png(10, 10, rows=310, more=chunk(b"gAMA", bytes(4))), READ),
        "PNG of a profile that is none": (saved(image(), icc_profile=b"rubbish" * 100), READ),
        "PNG of 200 frames": (framed("PNG", 200), READ),
        "JPEG of CMYK": (saved(image("CMYK", colour=(1, 2, 3, 4)), "JPEG"), READ),
        "JPEG of grey": (saved(image("L"), "JPEG"), READ),
        "JPEG of one pixel": (saved(image(size=(1, 1)), "JPEG"), READ),
        "PNG of one pixel": (saved(image(size=(1, 1))), READ),
        "PNG of 5,000 x 1": (saved(image(size=(5000, 1))), READ),
        "PNG of 1 x 5,000": (saved(image(size=(1, 5000))), READ),
    }  # fmt: skip


def _others() -> Cases:
    """Returns pictures in formats that are not supported: rejected, even if Pillow could read them."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\nshowpage\n"
    kinds = ("GIF", "BMP", "PPM", "ICO", "PDF")
    return {
        **{f"a {kind}": (saved(image(), kind), UNREADABLE) for kind in kinds},
        "an SVG": (svg, UNREADABLE),
        "an EPS": (eps, UNREADABLE),
        "a page of HTML": (b"<!doctype html><script>alert(1)</script>", UNREADABLE),
        "base64 of a PNG": (b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", UNREADABLE),
    }
