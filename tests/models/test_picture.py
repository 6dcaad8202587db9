"""Decoding pictures as a viewer shows them: every kind of file that Pillow can write, and refused files."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from models.base import InvalidInput

Image = pytest.importorskip("PIL.Image", reason="pip install '.[demo]'")
ImageCms = pytest.importorskip("PIL.ImageCms")
picture = pytest.importorskip("models.picture")

RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)
UPRIGHT = [RED, GREEN, BLUE, YELLOW]  # the corners, as read
TURNED = {  # how the pixels are stored for each orientation, so that a viewer shows the picture upright
    1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
}  # fmt: skip


def corners_picture(width: int = 80, height: int = 60) -> Any:
    pixels = np.zeros((height, width, 3), np.uint8)
    middle, half = height // 2, width // 2
    pixels[:middle, :half], pixels[:middle, half:], pixels[middle:, :half], pixels[middle:, half:] = UPRIGHT
    return Image.fromarray(pixels)


def file_of(image: Any, kind: str, **how: Any) -> bytes:
    file = BytesIO()
    lossless: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    image.save(file, kind, **lossless | how)
    return file.getvalue()


def seen(content: bytes) -> list[tuple[int, ...]]:
    """Returns the colours near the four corners, away from the edges."""
    pixels = picture.middle_of(content, 224, 256)
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    return [tuple(map(int, pixels[row, column])) for row, column in ((9, 9), (9, -9), (-9, 9), (-9, -9))]


def near(found: list[tuple[int, ...]], expected: list[Any], tolerance: int = 3) -> bool:
    return bool(np.abs(np.array(found) - np.array(expected)).max() <= tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_upright_as_its_metadata_say(kind: str, orientation: int) -> None:
    image, exif = corners_picture(), Image.Exif()
    exif[0x0112] = orientation
    turn = TURNED[orientation]
    held = image.transpose(Image.Transpose[turn]) if turn else image
    if orientation > 1:
        assert not near(seen(file_of(held, kind)), UPRIGHT)
    assert near(seen(file_of(held, kind, exif=exif)), UPRIGHT)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert near(seen(file_of(corners_picture(), "JPEG", exif=exif)), UPRIGHT)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"nonsense"])
def test_broken_metadata_are_ignored(kind: str, exif: bytes) -> None:
    assert near(seen(file_of(corners_picture(), kind, exif=exif)), UPRIGHT)


def half_hidden(mode: str) -> Any:
    """Returns a picture whose right half has colours but is fully transparent."""
    image = corners_picture().convert("RGBA")
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:, 40:] = 0
    image.putalpha(Image.fromarray(alpha))
    return image.convert(mode) if mode != "RGBA" else image


@pytest.mark.parametrize(
    ("mode", "kind", "left"),
    [
        ("RGBA", "PNG", (RED, BLUE)),
        ("RGBA", "WEBP", (RED, BLUE)),
        ("RGBA", "TIFF", (RED, BLUE)),
        ("LA", "PNG", ((76, 76, 76), (29, 29, 29))),
        ("LA", "TIFF", ((76, 76, 76), (29, 29, 29))),
        ("PA", "TIFF", None),
    ],
)
def test_what_is_hidden_under_transparency_is_white(mode: str, kind: str, left: Any) -> None:
    found = seen(file_of(half_hidden(mode), kind))
    assert near([found[1], found[3]], [WHITE, WHITE])
    assert left is None or near([found[0], found[2]], list(left))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_colour_that_stands_for_transparency_is_white(mode: str) -> None:
    image = corners_picture()
    if mode == "P":
        image = image.quantize(4)
        hidden: Any = image.getpixel((79, 0))
        expected: list[Any] = [RED, WHITE, BLUE, YELLOW]
    elif mode == "RGB":
        hidden, expected = GREEN, [RED, WHITE, BLUE, YELLOW]
    elif mode == "L":
        image = image.convert("L")
        hidden, expected = 150, [(76,) * 3, WHITE, (29,) * 3, (226,) * 3]
    else:
        image = image.convert("L").point(lambda value: 255 * (value > 200)).convert("1")
        hidden, expected = 0, [WHITE, WHITE, WHITE, WHITE]
    assert near(seen(file_of(image, "PNG", transparency=hidden)), expected)


def test_a_palette_with_an_alpha_for_each_colour_is_blended_with_white() -> None:
    image = corners_picture().quantize(4)
    alphas = bytearray(4)
    for place, alpha in (((0, 0), 255), ((79, 0), 0), ((0, 59), 128), ((79, 59), 255)):
        alphas[image.getpixel(place)] = alpha
    found = seen(file_of(image, "PNG", transparency=bytes(alphas)))
    assert near(found, [RED, WHITE, (127, 127, 255), YELLOW])


def test_what_is_half_transparent_is_half_white() -> None:
    image = corners_picture().convert("RGBA")
    image.putalpha(128)
    assert near(seen(file_of(image, "PNG")), [(255, 127, 127), (127, 255, 127), (127, 127, 255), (255, 255, 127)])


def test_hidden_colours_do_not_bleed_into_what_is_seen() -> None:
    """Scales fine stripes of opaque white and transparent black: the result must be white, not grey."""
    pixels = np.zeros((2048, 2048, 4), np.uint8)
    pixels[:, ::2] = 255
    assert picture.middle_of(file_of(Image.fromarray(pixels), "PNG"), 224, 256).min() >= 253


GREYS = np.linspace(0, 255, 80).astype(np.uint8)[None].repeat(60, 0)


def seen_greys(content: bytes) -> list[int]:
    """Returns the greys in the middle row: a sixteenth of the width from each end, and in the middle."""
    row = picture.middle_of(content, 240, 240)[120]
    assert (row == row[:, :1]).all()
    return [int(row[column, 0]) for column in (15, 120, 225)]


@pytest.fixture(scope="module")
def plain_greys() -> list[int]:
    return seen_greys(file_of(Image.fromarray(GREYS), "PNG"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_sixteen_bits_looks_like_grey_of_eight(kind: str, plain_greys: list[int]) -> None:
    image = Image.fromarray(GREYS.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert near([tuple(seen_greys(file_of(image, kind)))], [plain_greys], 1)


def test_grey_of_sixteen_bits_from_a_big_endian_machine_looks_the_same(plain_greys: list[int]) -> None:
    image = Image.frombytes("I;16B", (80, 60), (GREYS.astype(np.uint16) * 257).astype(">u2").tobytes())
    assert near([tuple(seen_greys(file_of(image, "TIFF")))], [plain_greys], 1)


def test_grey_of_sixteen_bits_with_a_transparent_value_is_white_there() -> None:
    values = np.full((60, 80), 40_000, np.uint16)
    values[:, 40:] = 20_000
    png = file_of(Image.fromarray(values), "PNG")
    header = png.index(b"IDAT") - 4
    body = b"tRNS" + (20_000).to_bytes(2, "big")
    import zlib

    chunk = (2).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    assert near(seen(png[:header] + chunk + png[header:]), [(155,) * 3, WHITE, (155,) * 3, WHITE])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_bits_are_stretched_to_the_whole_range(bits: int) -> None:
    image = Image.fromarray(np.repeat([[0, 2**bits - 1]], 40, axis=1).repeat(60, 0).astype(np.uint8), "P")
    image.putpalette([value for index in range(2**bits) for value in (index * 255 // (2**bits - 1),) * 3])
    assert near(seen(file_of(image, "PNG", bits=bits)), [(0, 0, 0), WHITE, (0, 0, 0), WHITE])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_black_and_white_of_one_bit_is_black_and_white(kind: str) -> None:
    image = Image.fromarray(np.repeat([[0, 255]], 40, axis=1).repeat(60, 0).astype(np.uint8)).convert("1")
    content = file_of(image.convert("L") if kind == "WEBP" else image, kind)
    assert near(seen(content), [(0, 0, 0), WHITE, (0, 0, 0), WHITE])


def test_a_tiff_whose_white_is_zero_is_not_a_negative(plain_greys: list[int]) -> None:
    for values, depth in ((GREYS, 1), (GREYS.astype(np.uint16) * 257, 2)):
        held = np.iinfo(values.dtype).max - values
        content = bytearray(file_of(Image.fromarray(held), "TIFF"))
        tag = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # PhotometricInterpretation: black is zero
        content[tag + 8] = 0
        assert near([tuple(seen_greys(bytes(content)))], [plain_greys], 1), depth


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"), ("L", "PNG"), ("L", "TIFF"), ("P", "PNG"), ("P", "TIFF"), ("RGB", "JPEG"), ("RGB", "PNG"),
        ("RGB", "WEBP"), ("RGB", "TIFF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("YCbCr", "TIFF"),
        ("LAB", "TIFF"),
    ],
)  # fmt: skip
def test_every_colour_model_is_seen_in_its_colours(mode: str, kind: str) -> None:
    image = corners_picture()
    if mode == "P":
        image = image.quantize(4)
    elif mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    else:
        image = image.convert(mode)
    expected: list[Any] = [(76,) * 3, (150,) * 3, (29,) * 3, (226,) * 3] if mode == "L" else UPRIGHT
    assert near(seen(file_of(image, kind)), expected, 25 if mode == "LAB" else 3)


def test_a_cmyk_jpeg_is_read_as_adobe_writes_it_with_its_mark_or_without_as_in_a_browser() -> None:
    """Reads a file whose numbers are inverted: they give the remaining paper, not the ink."""
    content = file_of(corners_picture().convert("CMYK"), "JPEG")
    at = content.index(b"\xff\xee")
    unmarked = content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]
    assert b"Adobe" not in unmarked
    assert near(seen(content), UPRIGHT)
    assert near(seen(unmarked), UPRIGHT)


def profile(change: Callable[[bytes], bytes] = lambda content: content) -> bytes:
    return change(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def red_is_green(content: bytes) -> bytes:
    """Returns the profile with its red and green primaries interchanged."""
    return content.replace(b"rXYZ", b"tmp!", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp!", b"gXYZ", 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colours_are_those_of_the_files_profile(kind: str) -> None:
    image = corners_picture()
    assert near(seen(file_of(image, kind, icc_profile=profile())), UPRIGHT)
    assert near(seen(file_of(image, kind, icc_profile=profile(red_is_green))), [GREEN, RED, BLUE, YELLOW], 8)


def test_a_profile_and_transparency_and_orientation_go_together() -> None:
    exif = Image.Exif()
    exif[0x0112] = 2
    content = file_of(half_hidden("RGBA"), "PNG", icc_profile=profile(red_is_green), exif=exif)
    assert near(seen(content), [WHITE, GREEN, WHITE, BLUE], 8)


@pytest.mark.parametrize("broken", [b"", b"nonsense", profile()[:200], b"\0" * 4096])
def test_a_broken_profile_is_left_out(broken: bytes) -> None:
    assert near(seen(file_of(corners_picture(), "PNG", icc_profile=broken)), UPRIGHT)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_another_colour_model_is_left_out(mode: str) -> None:
    image = corners_picture().convert(mode)
    without, with_it = file_of(image, "JPEG"), file_of(image, "JPEG", icc_profile=profile())
    assert seen(with_it) == seen(without)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_seen(kind: str) -> None:
    others = [Image.new("RGB", (80, 60), colour) for colour in (BLUE, GREEN)]
    assert near(seen(file_of(corners_picture(), kind, save_all=True, append_images=others)), UPRIGHT)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (600, 1), (3, 5)])
def test_a_picture_of_any_size_is_seen(size: tuple[int, int]) -> None:
    assert near(seen(file_of(Image.new("RGB", size, RED), "PNG")), [RED] * 4)


@pytest.mark.parametrize(("mode", "kind"), [("I", "TIFF"), ("F", "TIFF")])
def test_numbers_without_an_agreed_white_are_refused_with_a_sentence(mode: str, kind: str) -> None:
    with pytest.raises(InvalidInput, match="for which white is not defined; send 8 or 16 bits"):
        picture.middle_of(file_of(corners_picture().convert(mode), kind), 224, 256)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    content = file_of(noise, kind)
    for length in (0, 4, 40, len(content) // 2):
        with pytest.raises(InvalidInput, match="not a readable JPEG, PNG, WebP or TIFF"):
            picture.middle_of(content[:length], 224, 256)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "ICO", "PPM", "TGA", "PDF", "EPS"])
def test_other_kinds_of_file_are_refused(kind: str) -> None:
    content = file_of(corners_picture().convert("P") if kind == "GIF" else corners_picture(), kind)
    with pytest.raises(InvalidInput, match="not a readable JPEG, PNG, WebP or TIFF"):
        picture.middle_of(content, 224, 256)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("side", [7_200, 10_000, 16_000])
def test_a_small_file_with_very_many_pixels_is_refused_before_it_is_unpacked(kind: str, side: int) -> None:
    """Refuses the file by its header alone; there are no pixels after it."""
    content = announcing(kind, side)
    assert len(content) < 10_000
    with pytest.raises(InvalidInput, match=r"pixels; at most (50,000,000|16,000,000 of a WEBP) are accepted"):
        picture.middle_of(content, 224, 256)


@pytest.mark.parametrize(("side", "is_read"), [(4000, True), (4001, False)])
def test_a_webp_has_a_bound_of_its_own_since_no_other_thread_runs_while_its_pixels_are_copied(
    side: int, is_read: bool
) -> None:
    file = BytesIO()
    Image.new("RGB", (side, side), (90, 120, 60)).save(file, "WEBP", lossless=True, method=0)
    if is_read:
        assert picture.middle_of(file.getvalue(), 4, 4)[0, 0].tolist() == [90, 120, 60]
    else:
        with pytest.raises(InvalidInput, match="4001 x 4001 pixels; at most 16,000,000 of a WEBP are accepted"):
            picture.middle_of(file.getvalue(), 4, 4)


def announcing(kind: str, side: int) -> bytes:
    """Returns a small file whose header announces this many rows and columns."""
    content = bytearray(file_of(Image.new("RGB", (16, 16), RED), kind))
    if kind == "PNG":
        import zlib

        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    elif kind == "TIFF":
        for tag in (b"\x00\x01", b"\x01\x01"):
            at = content.index(tag + b"\x04\x00\x01\x00\x00\x00\x10\x00")
            content[at + 8 : at + 10] = side.to_bytes(2, "little")
    else:
        bits = int.from_bytes(content[21:25], "little") & ~0xFFFFFFF
        content[21:25] = (bits | (side - 1) | (side - 1) << 14).to_bytes(4, "little")
    return bytes(content)
