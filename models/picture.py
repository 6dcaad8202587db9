"""Decodes a picture as a viewer shows it: upright, transparent pixels on white, in sRGB. Independent of any model.

The formats are those of photographs; of several frames, the first is used.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from models.base import InvalidInput

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
READABLE = "JPEG, PNG, WebP or TIFF"
MOST_PIXELS = 50_000_000  # a small file may unpack to gigabytes
INVISIBLE = 2  # of 255
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
ORIENTATION, PHOTOMETRIC, BITS = 0x0112, 0x0106, 0x0102  # tags of Exif and TIFF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def middle_of(content: bytes, size: int, shorter_side: int) -> np.ndarray:
    """Scales the picture until its shorter side has this length, and returns the middle: bytes, [size, size, 3].

    Raises `InvalidInput` for bytes that are not a picture, for too many pixels, and for pixel types without a defined
    white.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise InvalidInput(f"image: {width} x {height} pixels; at most {MOST_PIXELS:,} are accepted")
            # A JPEG can be unpacked at half, quarter or eighth size, which is most of the work saved.
            image.draft("RGB", (2 * shorter_side, 2 * shorter_side))
            image.load()
            middle = _middle(_eight_bits(image), size, shorter_side)
            profile, turn = image.info.get("icc_profile"), UPRIGHT.get(_orientation(image))
    except InvalidInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own limits
        raise InvalidInput(f"image: too many pixels; at most {MOST_PIXELS:,} are accepted") from error
    except Exception as error:  # Pillow raises a dozen types for broken files
        raise InvalidInput(f"image: not a readable {READABLE} ({type(error).__name__})") from error
    seen = _on_white(middle, profile)
    # The middle is a centred square, so it can be turned after scaling, when it is small.
    return np.asarray(seen if turn is None else seen.transpose(turn))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts to L, RGB, RGBA or CMYK of eight bits. Raises `InvalidInput`."""
    if image.mode in SIXTEEN_BITS:
        return _from_sixteen_bits(image)
    if image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit or signed numbers"
        raise InvalidInput(f"image: its pixels are {kind}, for which white is not defined; send 8 or 16 bits")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Converts to eight bits of grey. Pillow would clip values at 255, although white is 65535."""
    values = np.asarray(image).astype(np.uint32)
    tags = getattr(image, "tag_v2", {})
    largest = 2 ** tags.get(BITS, (16,))[0] - 1
    grey = np.minimum(values * 255 // largest, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # TIFF's "white is zero"
        grey = 255 - grey
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    alpha = np.where(values == clear, 0, 255).astype(np.uint8)
    return Image.merge("RGBA", [*[Image.fromarray(grey)] * 3, Image.fromarray(alpha)])


def _middle(image: Image.Image, size: int, shorter_side: int) -> Image.Image:
    width, height = image.size
    side = min(width, height) * size / shorter_side
    left, top = (width - side) / 2, (height - side) / 2
    # Pillow weighs the colours of RGBA by their opacity: transparent pixels do not bleed into visible ones.
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns the picture in sRGB, transparent pixels on white."""
    if image.mode != "RGBA":
        return _in_srgb(image, profile)
    colours = _in_srgb(image.convert("RGB"), profile)
    white = Image.new("RGB", image.size, (255, 255, 255))
    return Image.composite(colours, white, image.getchannel("A"))


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    transform = _transform(profile, image.mode) if profile else None
    return image.convert("RGB") if transform is None else transform.apply(image)


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform from a profile's colours to sRGB; None if the profile is broken, of another mode, or sRGB
    itself."""
    try:
        described = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(described, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform if _changes_colours(transform, mode) else None


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Returns whether the transform changes colours visibly. Most profiles are sRGB; applying one without effect would
    take a fifth of a photograph's time."""
    if mode != "RGB":
        return True
    steps = np.arange(0, 256, 15, np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    changed = np.asarray(transform.apply(Image.fromarray(colours)))
    return int(np.abs(changed.astype(int) - colours).max()) > INVISIBLE


def _orientation(image: Image.Image) -> int | None:
    """Returns the Exif orientation; None if metadata are missing or broken, which a viewer ignores too."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises a dozen types here too
        return None
    return orientation if isinstance(orientation, int) else None
