"""Arrays: NPY, NPZ and folders of images."""

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from densekit.formats.limits import FileError, check_size, refusing, shown
from densekit.formats.places import FORMATS, Place

_PICTURES = (".png", ".jpg", ".jpeg")
_NPY = b"\x93NUMPY"
_LISTED = 10


def read_npy(place: Place, file: IO[bytes]) -> np.ndarray:
    """The array of a .npy file, whose header must agree with its length."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return _array(place.name, file, size)


def _array(name: str, file: IO[bytes], size: int) -> np.ndarray:
    """The array in ``size`` bytes of ``file``: memory is taken only for what is there."""
    with refusing(name):
        version = np.lib.format.read_magic(file)
        # Version 3 differs from 2 in how names of fields are written, and their lengths agree.
        first = version == (1, 0)
        header = (
            np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
        there = size - file.tell()
    if dtype.hasobject:
        raise FileError(
            f"{name} holds Python objects, which are never loaded; save an array of numbers or of "
            "fixed-length strings, or use .parquet"
        )
    words = f"an array of shape {shown(shape)} and dtype {shown(str(dtype))}"
    if not shape:
        raise FileError(f"{name} holds one number, and rows are expected: save an array of them")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or claimed > there:
        raise FileError(
            f"{name} is truncated or damaged: its header tells of {words}, {claimed:,} bytes, and "
            f"{there:,} follow it; write it again"
        )
    if claimed == 0:
        raise FileError(f"{name} has no rows, or rows without values: it is {words}")
    file.seek(0)
    with refusing(name):
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


def read_npz(place: Place, file: IO[bytes]) -> np.ndarray:
    """One array of a .npz file: the one asked for, or the only one."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with refusing(place.name), zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        member = members[_key(place, list(members))]
        if member.flag_bits & 1:
            raise FileError(f"{place.name} is encrypted: write it without a password")
        # A member can say of itself what it likes; packed it is no longer than the file.
        check_size(place.name, member.file_size, min(member.compress_size, size))
        with archive.open(member) as content:  # which reads no more than file_size
            if content.read(len(_NPY)) != _NPY:
                raise FileError(
                    f"{place.name}: {shown(member.filename)} is no array; write arrays with "
                    "numpy.savez"
                )
            content.seek(0)
            return _array(place.name, content, member.file_size)


def _key(place: Place, keys: list[str]) -> str:
    key = place.key or (keys[0] if len(keys) == 1 else None)
    if key in keys:
        return key
    more = f", ... ({len(keys):,} in all)" if len(keys) > _LISTED else ""
    listed = ", ".join(name[:80] for name in keys[:_LISTED]) + more
    have = f"it holds {listed}" if keys else "it holds no array"
    what = f"no array called {key!r}" if key else "which array?"
    raise FileError(f"{place.path}: {what} {have}: write {place.path}:KEY")


def read_images(place: Place) -> np.ndarray:
    """The images of a folder, in the order of their names."""
    paths = _pictures_in(place)
    packed, images = sum(path.stat().st_size for path in paths), list[np.ndarray]()
    for path in paths:
        pixels = _pixels(path, packed, len(paths))
        if images and (pixels.shape, pixels.dtype) != (images[0].shape, images[0].dtype):
            raise FileError(
                f"{path} has shape {pixels.shape} ({pixels.dtype}) and {paths[0].name} "
                f"{images[0].shape} ({images[0].dtype}): bring all images to one size and mode"
            )
        images.append(pixels)
    return np.stack(images)


def _pictures_in(place: Place) -> list[Path]:
    if place.path is None:
        raise FileError("a folder of images is no stream: give its path")
    if not place.path.exists():
        raise FileNotFoundError(f"{place.name}: no such file or folder")
    if not place.path.is_dir():
        raise FileError(
            f"{place.name} is a file whose name has no suffix: rename it or name its format "
            f"({', '.join(FORMATS[:-1])})"
        )
    paths = sorted(p for p in place.path.iterdir() if p.suffix.lower() in _PICTURES)
    if not paths:
        raise FileError(f"{place.name} is a folder without images ({', '.join(_PICTURES)})")
    for path in paths:
        if not path.is_file():  # to open a pipe would be to wait for who writes to it
            raise FileError(f"{path} is no file, although its name is that of an image: move it")
    return paths


def _pixels(path: Path, packed: int, n: int) -> np.ndarray:
    """(height, width) or (height, width, 3) of one of ``n`` images of a size, ``packed`` bytes together;
    a palette is looked up."""
    from PIL import Image

    with refusing(str(path)), warnings.catch_warnings():
        # Pillow has a limit of its own, whatever the file's size: ours is met first, or named here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(path, formats=["PNG", "JPEG"])
        except Image.UnidentifiedImageError as error:
            raise FileError(f"{path} is not what its name says: no PNG and no JPEG") from error
        except Image.DecompressionBombError as error:
            raise FileError(
                f"{path} claims more pixels than an image is read with ({error}): make it smaller "
                "(mogrify -resize 64x64 *.png)"
            ) from error
        with opened as image:
            _check_mode(path, image)
            colors = 1 if image.mode in ("1", "L") else 3
            remedy = "make the images smaller (mogrify -resize 64x64 *.png), or write them as .npy"
            whole = n * image.width * image.height * colors
            check_size(f"{path}, in a folder of {n:,}", whole, packed, remedy)
            return np.array(image.convert("RGB") if image.mode == "P" else image)


def _check_mode(path: Path, image: Any) -> None:
    palette = image.mode == "P" and "transparency" not in image.info
    if not palette and image.mode not in ("1", "L", "RGB"):
        raise FileError(
            f"{path} has mode {image.mode}; images must be gray or RGB with 8 bits and no alpha: "
            "convert them (mogrify -alpha off -depth 8 *.png)"
        )
