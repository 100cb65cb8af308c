"""Every file that people have is read for what it is, or refused with the true reason, before it costs memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from misc import pictures
from misc.errors import InputError
from misc.images import profile_of, read_alpha, read_image, read_mask, read_rgba, to_srgb, write_image
from tests.scenes import boxes, photograph, wide_profile

PHOTO = photograph(48, 64)
SHAPE = boxes(48, 64, (10, 40, 20, 44))[0]


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def encoded(picture: np.ndarray, suffix: str, **options: object) -> bytes:
    memory = io.BytesIO()
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    Image.fromarray(picture).save(memory, formats.get(suffix, suffix[1:].upper()), **options)  # type: ignore[arg-type]
    return memory.getvalue()


# --------------------------------------------------------------------------------------------------- which way is up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_photographs_stand_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    lossless = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}, ".avif": {"quality": 100}}
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(encoded(PHOTO, suffix, exif=exif_of(orientation), **lossless.get(suffix, {})))
    turned = {
        1: PHOTO, 2: PHOTO[:, ::-1], 3: PHOTO[::-1, ::-1], 4: PHOTO[::-1], 5: PHOTO.transpose(1, 0, 2),
        6: np.rot90(PHOTO, -1), 7: PHOTO[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PHOTO),
    }  # fmt: skip
    found = read_image(path)
    assert found.shape == turned[orientation].shape
    assert np.abs(found.astype(int) - turned[orientation]).mean() < 3


@pytest.mark.parametrize("late", [False, True])
def test_cutouts_masks_and_alphas_stand_upright(tmp_path: Path, late: bool) -> None:
    cutout = np.dstack([PHOTO, SHAPE])
    data = encoded(cutout, ".png", exif=exif_of(6))
    if late:  # some tools write the chunk behind the pixels
        place = data.index(b"eXIf") - 4
        size = 12 + struct.unpack_from(">I", data, place)[0]
        data = data[:place] + data[place + size : -12] + data[place : place + size] + data[-12:]
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(read_rgba(tmp_path / "a.png"), np.rot90(cutout, -1))
    (tmp_path / "m.png").write_bytes(encoded(SHAPE, ".png", exif=exif_of(8)))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.rot90(SHAPE))
    np.testing.assert_array_equal(read_alpha(tmp_path / "m.png") * 255, np.rot90(SHAPE))


def test_damaged_exif_costs_nothing(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        data = encoded(PHOTO, suffix) if suffix == ".tif" else encoded(PHOTO, suffix, exif=b"Exif\0\0MM\0*\xff\xff")
        (tmp_path / f"a{suffix}").write_bytes(data)
        assert read_image(tmp_path / f"a{suffix}").shape == PHOTO.shape


# --------------------------------------------------------------------------------------- something behind the picture


@pytest.mark.parametrize(
    "behind",
    [
        b"\0" * 500,
        np.random.default_rng(1).bytes(4000) + b"\xff\xda" + bytes(9),  # a video whose last marker is a chance one
        encoded(PHOTO[:16, :16], ".jpg"),  # a gain map
        encoded(PHOTO[:16, :16], ".jpg")[:-300],
        b"\r\n",
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_something_behind_it_is_whole(tmp_path: Path, behind: bytes, progressive: bool) -> None:
    data = encoded(PHOTO, ".jpg", progressive=progressive, exif=exif_of(1))
    (tmp_path / "plain.jpg").write_bytes(data)
    (tmp_path / "more.jpg").write_bytes(data + behind)
    np.testing.assert_array_equal(read_image(tmp_path / "more.jpg"), read_image(tmp_path / "plain.jpg"))


def test_jpeg_with_a_thumbnail_is_cut_where_the_main_picture_is(tmp_path: Path) -> None:
    thumbnail = encoded(PHOTO[:16, :16], ".jpg")
    large = np.kron(PHOTO, np.ones((6, 6, 1), np.uint8))
    data = encoded(large, ".jpg", exif=exif_of(1) + thumbnail)
    for share in (0.6, 0.9, 0.99):
        (tmp_path / "cut.jpg").write_bytes(data[: int(share * len(data))])
        with pytest.raises(InputError, match="cut short"):
            read_image(tmp_path / "cut.jpg")
    (tmp_path / "whole.jpg").write_bytes(data)
    assert read_image(tmp_path / "whole.jpg").shape == large.shape


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif", ".bmp", ".gif"])
def test_cut_files_of_every_format_are_refused(tmp_path: Path, suffix: str) -> None:
    data = encoded(np.repeat(PHOTO, 4, 0), suffix)
    for share in (0.02, 0.5, 0.9):
        (tmp_path / f"cut{suffix}").write_bytes(data[: int(share * len(data))])
        with pytest.raises(InputError, match=r"cut short|not a readable image"):
            read_image(tmp_path / f"cut{suffix}")


# ---------------------------------------------------------------------------------------------------- claimed sizes


def claim_png(data: bytes) -> bytes:
    header = data[12:16] + struct.pack(">II", 60000, 60000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def claim_jpeg(data: bytes) -> bytes:
    place = data.index(b"\xff\xc0")
    return data[: place + 5] + struct.pack(">HH", 60000, 60000) + data[place + 9 :]


def claim_tiff(data: bytes) -> bytes:
    for tag in (0x0100, 0x0101):
        for kind in (3, 4):
            head = struct.pack("<HHI", tag, kind, 1)
            if head in data:
                place = data.index(head)
                data = data[: place + 2] + struct.pack("<HII", 4, 1, 60000) + data[place + 12 :]
    return data


def claim_webp(data: bytes) -> bytes:
    place = data.index(b"VP8X") + 12
    return data[:place] + (59999).to_bytes(3, "little") * 2 + data[place + 6 :]


def claim_avif(data: bytes) -> bytes:
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", 60000, 60000) + data[place + 8 :]


def claim_bmp(data: bytes) -> bytes:
    return data[:18] + struct.pack("<ii", 60000, 60000) + data[26:]


def claim_gif(data: bytes) -> bytes:
    return data[:6] + struct.pack("<HH", 60000, 60000) + data[10:]


CLAIMS: dict[str, Callable[[bytes], bytes]] = {
    ".png": claim_png, ".jpg": claim_jpeg, ".tif": claim_tiff, ".webp": claim_webp, ".avif": claim_avif,
    ".bmp": claim_bmp, ".gif": claim_gif,
}  # fmt: skip


@pytest.mark.parametrize("suffix", CLAIMS)
def test_size_is_refused_from_the_header_with_the_limit(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)  # nothing may be decoded
    monkeypatch.setattr(pictures.Picture, "_by_pillow", None)
    path = tmp_path / f"large{suffix}"
    extra = {"exif": exif_of(1)} if suffix == ".webp" else {}  # only the extended kind can claim so much
    path.write_bytes(CLAIMS[suffix](encoded(PHOTO, suffix, **extra)))
    for read in (read_image, read_rgba, read_alpha, read_mask):
        with pytest.raises(InputError, match=rf"large\{suffix}: 60000×60000 pixels, .* at most 268 million"):
            read(path)


def test_200_megapixels_of_a_telephone_are_within_the_limit() -> None:
    assert pictures.MOST_PIXELS > 16320 * 12240


# ------------------------------------------------------------------------------------------------------- kinds of file


@pytest.mark.parametrize("suffix", pictures.PHOTOGRAPHS)
def test_every_listed_format_is_read(tmp_path: Path, suffix: str) -> None:
    names = {".jfif": "JPEG", ".jpeg": "JPEG", ".jpg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
    names |= dict.fromkeys(pictures.HEIC, "HEIF")
    Image.fromarray(PHOTO).save(tmp_path / f"a{suffix}", names.get(suffix, suffix[1:].upper()))
    found = read_image(tmp_path / f"a{suffix}")
    assert np.abs(found.astype(int) - PHOTO).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_photographs_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode == "CMYK" else ".png"
    source = Image.fromarray(PHOTO)
    (source.convert("RGB") if mode == "LA" else source).convert(mode).save(tmp_path / f"a{suffix}")
    found = read_image(tmp_path / f"a{suffix}")
    assert found.shape == PHOTO.shape
    grey = PHOTO if mode in ("RGBA", "CMYK", "P") else cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)[..., None]
    assert np.abs(found.mean(axis=(0, 1)) - grey.mean(axis=(0, 1))).max() < 8


def test_16_bits_become_8(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), PHOTO[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PHOTO)
    Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.repeat(PHOTO[..., :1], 3, 2))
    rgba = np.dstack([PHOTO, SHAPE])
    cv2.imwrite(str(tmp_path / "c.png"), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA).astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_rgba(tmp_path / "c.png"), rgba)


@pytest.mark.skipif(pictures.pillow_heif is not None, reason="pillow-heif is installed")
def test_heic_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(InputError, match=r"a\.heic: HEIC needs `pip install pillow-heif`"):
        read_image(tmp_path / "a.heic")


def test_reading_does_not_depend_on_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(PHOTO, ".png"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), PHOTO)


def test_long_captions_are_no_fault(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("workflow", "x" * 3_000_000, zip=True)
    (tmp_path / "a.png").write_bytes(encoded(PHOTO, ".png", pnginfo=text))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PHOTO)


# -------------------------------------------------------------------------------------------------------- colour spaces


def test_profiles_are_kept_and_converted(tmp_path: Path) -> None:
    profile = wide_profile()
    (tmp_path / "a.jpg").write_bytes(encoded(PHOTO, ".jpg", icc_profile=profile, quality=100, subsampling=0))
    assert profile_of(tmp_path / "a.jpg") == profile
    plain = read_image(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg", srgb=True), plain[..., [1, 0, 2]], atol=3)
    cutout = np.dstack([plain, SHAPE])
    write_image(tmp_path / "c.png", cutout, profile=profile)
    assert Image.open(tmp_path / "c.png").info["icc_profile"] == profile
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "c.png")), cutout)
    np.testing.assert_array_equal(read_rgba(tmp_path / "c.png"), cutout)
    np.testing.assert_allclose(read_rgba(tmp_path / "c.png", srgb=True)[..., [1, 0, 2, 3]], cutout, atol=3)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert to_srgb(plain, own) is plain
    assert to_srgb(plain, b"no profile at all" * 20) is plain
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    (tmp_path / "b.jpg").write_bytes(encoded(PHOTO, ".jpg", icc_profile=grey))
    assert profile_of(tmp_path / "b.jpg") is None
