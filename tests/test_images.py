"""The one reader of images: odd kinds come out right, damaged ones are named, none escapes."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from faults import images
from faults.images import encoded, photo
from PIL import Image, ImageOps

from paperrepro import files
from paperrepro.files import UnreadableImage, open_image, read_image

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
GREY = (RAMP * 255).round().astype(np.uint8)


def as_array(image):
    return np.asarray(image).astype(int)


# Odd kinds


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(format):
    image = Image.fromarray((RAMP * 65535).round().astype(np.uint16))
    assert abs(as_array(open_image(encoded(image, format)))[..., 0] - GREY).max() <= 1


@pytest.mark.parametrize("factor, offset", [(1, 0), (1000, -300), (1e-3, 5)])
def test_floats_are_scaled(factor, offset):
    image = Image.fromarray((RAMP * factor + offset).astype(np.float32))
    assert abs(as_array(open_image(encoded(image, "TIFF")))[..., 1] - GREY).max() <= 1


def test_floats_within_zero_and_one_keep_their_lightness():
    image = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert (as_array(open_image(encoded(image, "TIFF"))) == 128).all()


def test_thirty_two_bits_are_scaled():
    image = Image.fromarray((RAMP * 2e9 - 1e9).astype(np.int32))
    assert abs(as_array(open_image(encoded(image, "TIFF")))[..., 2] - GREY).max() <= 1


def test_values_that_are_not_finite_are_refused():
    image = Image.fromarray(np.where(GREY > 200, np.nan, RAMP).astype(np.float32))
    with pytest.raises(UnreadableImage, match="scan.tif.*finite"):
        open_image(encoded(image, "TIFF"), "scan.tif")


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_orientation_is_applied(number, format):
    exif = Image.Exif()
    exif[files.ORIENTATION] = number
    lossless = {"WEBP": {"lossless": True}}.get(format, {})
    data = encoded(photo(), format, exif=exif, **lossless)
    expected = as_array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert expected.shape[:2] == ((32, 48) if number < 5 else (48, 32))
    np.testing.assert_array_equal(as_array(open_image(data)), expected)
    np.testing.assert_array_equal(read_image(data).permute(1, 2, 0), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"])
def test_any_mode_is_rgb(mode):
    image = photo().convert("L").convert(mode) if mode == "I;16" else photo().convert(mode)
    data = encoded(image, "TIFF")
    assert open_image(data).mode == "RGB"
    assert read_image(data).shape == (3, 32, 48)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decoders_agree_to_the_last_bit(mode, options, monkeypatch):
    data = encoded(photo(201, 155).convert(mode), "JPEG", quality=90, **options)
    as_installed = read_image(data)
    monkeypatch.setattr(files, "jpeg_decoder", lambda: None)
    assert torch.equal(as_installed, read_image(data))
    np.testing.assert_array_equal(as_installed.permute(1, 2, 0), as_array(open_image(data)))


# What is damaged


def bomb():
    """A PNG that says it has 400 million pixels, in a few bytes."""

    def chunk(kind, content):
        tail = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + tail

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("read", [open_image, read_image])
def test_a_bomb_a_pipe_a_folder_nothing(tmp_path, read):
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for name in ("bomb.png", "empty.jpg", "folder.jpg", "pipe.jpg", "dangling.jpg", "absent.jpg"):
        with pytest.raises(UnreadableImage, match=name):
            read(tmp_path / name)


def test_damaged_files_are_images_or_named():
    """Nothing but an image of eight bits or an error with the name comes out."""
    tally = images.attempt(1000)
    assert tally.tried == 1000 and not tally.wrong and not tally.uncaught, tally
    assert 200 < tally.refused < 800, "the corpus holds both"
