"""An image of any size, kind and mode is scaled and cropped to the size that is asked for, or named."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from worldmodel.errors import UserError
from worldmodel.image_data import load_images

ORIENTATION = ExifTags.Base.Orientation


def ramps(height: int, width: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom, blue stays."""
    y, x = np.mgrid[:height, :width]
    pixels = [255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), np.full_like(x, 77)]
    return Image.fromarray(np.stack(pixels, -1).round().astype(np.uint8))


def load_one(picture: Image.Image, name: str, size: tuple[int, int], **options: object) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "thing").mkdir()
        picture.save(Path(folder) / "thing" / name, **options)
        return load_images(folder, size=size).pixels[0].numpy()


def check_ramps(pixels: np.ndarray, height: int, width: int) -> None:
    """They are the middle of `ramps(height, width)`, scaled to just cover the picture."""
    rows, columns = pixels.shape[:2]
    scale = max(rows / height, columns / width)
    x = ((np.arange(columns) + 0.5 - columns / 2) / scale + width / 2 - 0.5) * 255 / (width - 1)
    y = ((np.arange(rows) + 0.5 - rows / 2) / scale + height / 2 - 0.5) * 255 / (height - 1)
    inside = np.s_[4:-4, 4:-4]  # at the edges the filter sees half of what it does elsewhere
    expected = np.stack(np.broadcast_arrays(x[None], y[:, None], 77.0), -1)
    np.testing.assert_allclose(pixels[inside], expected[inside], atol=4)


@settings(max_examples=25)
@given(st.integers(40, 150), st.integers(40, 150), st.integers(10, 60), st.integers(10, 60))
def test_an_image_is_scaled_and_cropped_around_its_centre(height: int, width: int, rows: int, columns: int) -> None:
    check_ramps(load_one(ramps(height, width), "a.png", (rows, columns)), height, width)


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    for name in ("a.png", "a.BMP"):
        np.testing.assert_array_equal(load_one(Image.fromarray(pixels), name, (20, 30)), pixels)


def test_a_large_photograph_is_scaled_the_same_way_when_it_is_decoded_small() -> None:
    check_ramps(load_one(ramps(600, 1000), "a.JPEG", (40, 60), quality=95), 600, 1000)


def test_a_photograph_is_the_right_way_up() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera was turned: to be shown a quarter turn clockwise
    turned = ramps(60, 90).transpose(Image.Transpose.ROTATE_90)
    check_ramps(load_one(turned, "a.jpg", (30, 45), quality=95, exif=exif), 60, 90)


@pytest.mark.parametrize("orientation", range(10))
def test_a_camera_may_be_held_in_any_way(orientation: int) -> None:
    exif, picture = Image.Exif(), ramps(20, 30)
    exif[ORIENTATION] = orientation
    picture.getexif()[ORIENTATION] = orientation
    upright = ImageOps.exif_transpose(picture)
    pixels = load_one(ramps(20, 30), "a.png", (upright.height, upright.width), exif=exif)
    np.testing.assert_array_equal(pixels, np.asarray(upright))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_an_image_of_any_mode_becomes_rgb(mode: str) -> None:
    pixels = load_one(Image.new("RGB", (9, 9), "white").convert(mode), "a.jpg" if mode == "CMYK" else "a.png", (9, 9))
    assert pixels.shape == (9, 9, 3) and pixels.min() > 250


def encoded(kind: str) -> bytes:
    exif, content = Image.Exif(), io.BytesIO()
    for tag, value in {ORIENTATION: 6, ExifTags.Base.XResolution: 72.5, ExifTags.Base.Artist: "ann"}.items():
        exif[tag] = value
    ramps(24, 32).save(content, kind, **({} if kind == "bmp" else {"exif": exif}))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_what_else_a_camera_says_may_be_damaged(kind: str, tmp_path: Path) -> None:
    """Of ten thousand photographs there is always one, and Pillow's own turning raises whatever it stumbles over."""
    content = encoded(kind)
    fraction, text = (b"\x01\x1a\x00" + bytes([of]) for of in (5, 2))  # the resolution
    assert content.count(fraction) == 1
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / f"a.{kind}").write_bytes(content.replace(fraction, text))
    assert load_images(str(tmp_path), size=(32, 24)).pixels.shape == (1, 32, 24, 3)


@settings(max_examples=60)
@given(st.sampled_from(["png", "jpeg", "webp", "bmp"]), st.data())
def test_a_damaged_image_is_named_or_read_but_never_crashes(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(kind))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "thing").mkdir()
        path = Path(folder) / "thing" / f"a.{kind}"
        path.write_bytes(content)
        try:
            assert load_images(folder, size=(5, 7)).pixels.shape == (1, 5, 7, 3)
        except UserError as error:
            assert str(path) in str(error)
