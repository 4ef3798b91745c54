"""Readers of arrays: NPY and NPZ files, and folders of images."""

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from densekit.formats.limits import FileError, check_size, file_errors, quoted
from densekit.formats.locations import FORMATS, Location

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_NPY = b"\x93NUMPY"
_LISTED = 10


def read_npy(location: Location, file: IO[bytes]) -> np.ndarray:
    """The array of a .npy file; its header must agree with the length of the file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return _array(location.name, file, size)


def _array(name: str, file: IO[bytes], size: int) -> np.ndarray:
    """The array in ``size`` bytes of ``file``; the claimed size is checked before allocation."""
    with file_errors(name):
        version = np.lib.format.read_magic(file)
        # Versions 2 and 3 differ in the encoding of field names only, so one reader parses both.
        first = version == (1, 0)
        parse_header = (
            np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = parse_header(file)
        available = size - file.tell()
    if dtype.hasobject:
        raise FileError(
            f"{name} contains Python objects, which are never loaded; save an array of numbers or of "
            "fixed-length strings, or use .parquet"
        )
    description = f"an array of shape {quoted(shape)} and dtype {quoted(str(dtype))}"
    if not shape:
        raise FileError(f"{name} contains a single number: save an array of rows")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or claimed > available:
        raise FileError(
            f"{name} is truncated or damaged: its header describes {description}, {claimed:,} bytes, "
            f"but {available:,} follow it; write it again"
        )
    if claimed == 0:
        raise FileError(f"{name} has no rows, or rows without values: it is {description}")
    file.seek(0)
    with file_errors(name):
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


def read_npz(location: Location, file: IO[bytes]) -> np.ndarray:
    """The array of a .npz file with the given key, or the only array of the file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with file_errors(location.name), zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        member = members[_key(location, list(members))]
        if member.flag_bits & 1:
            raise FileError(f"{location.name} is encrypted: write it without a password")
        # The archive may claim any compressed size, but it cannot exceed the size of the file.
        check_size(location.name, member.file_size, min(member.compress_size, size))
        with archive.open(member) as content:  # Reads at most file_size bytes.
            if content.read(len(_NPY)) != _NPY:
                raise FileError(
                    f"{location.name}: {quoted(member.filename)} is not an array; write arrays with "
                    "numpy.savez"
                )
            content.seek(0)
            return _array(location.name, content, member.file_size)


def _key(location: Location, keys: list[str]) -> str:
    """The requested key of a .npz file, or its only key."""
    key = location.key or (keys[0] if len(keys) == 1 else None)
    if key in keys:
        return key
    more = f", ... ({len(keys):,} in all)" if len(keys) > _LISTED else ""
    listed = ", ".join(name[:80] for name in keys[:_LISTED]) + more
    available = f"it has {listed}" if keys else "it has no array"
    problem = f"no array is called {key!r}" if key else "the file has several arrays"
    if not keys:
        raise FileError(f"{location.path}: {available}")
    raise FileError(f"{location.path}: {problem}; {available}: write {location.path}:KEY")


def read_images(location: Location) -> np.ndarray:
    """The images of a folder, sorted by name."""
    paths = _image_paths(location)
    file_bytes, images = sum(path.stat().st_size for path in paths), list[np.ndarray]()
    for path in paths:
        pixels = _pixels(path, file_bytes, len(paths))
        if images and (pixels.shape, pixels.dtype) != (images[0].shape, images[0].dtype):
            raise FileError(
                f"{path} has shape {pixels.shape} ({pixels.dtype}) and {paths[0].name} "
                f"{images[0].shape} ({images[0].dtype}): convert all images to one size and mode"
            )
        images.append(pixels)
    return np.stack(images)


def _image_paths(location: Location) -> list[Path]:
    if location.path is None:
        raise FileError("images cannot be read from a stream: give the path of a folder")
    if not location.path.exists():
        raise FileNotFoundError(f"{location.name}: no such file or folder")
    if not location.path.is_dir():
        raise FileError(
            f"{location.name} is a file without a suffix: rename it, or give its format "
            f"({', '.join(FORMATS[:-1])})"
        )
    paths = sorted(p for p in location.path.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES)
    if not paths:
        raise FileError(
            f"{location.name} is a folder without images ({', '.join(_IMAGE_SUFFIXES)})"
        )
    for path in paths:
        if not path.is_file():  # Opening a pipe would block until something is written to it.
            raise FileError(f"{path} has the name of an image but is not a file: move it")
    return paths


def _pixels(path: Path, file_bytes: int, n: int) -> np.ndarray:
    """The pixels of an image, (height, width) or (height, width, 3); palettes become RGB.

    The image is one of ``n`` in a folder with ``file_bytes`` bytes. The size check assumes that all
    have the size of this one.
    """
    from PIL import Image

    with file_errors(str(path)), warnings.catch_warnings():
        # Pillow warns at its own limit, which ignores the size of the file. check_size is stricter.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(path, formats=["PNG", "JPEG"])
        except Image.UnidentifiedImageError as error:
            raise FileError(f"{path} is neither PNG nor JPEG, despite its name") from error
        except Image.DecompressionBombError as error:
            raise FileError(
                f"{path} claims too many pixels ({error}): make it smaller "
                "(mogrify -resize 64x64 *.png)"
            ) from error
        with opened as image:
            _check_mode(path, image)
            colors = 1 if image.mode in ("1", "L") else 3
            remedy = "make the images smaller (mogrify -resize 64x64 *.png), or write them as .npy"
            total = n * image.width * image.height * colors
            check_size(f"{path}, in a folder of {n:,}", total, file_bytes, remedy)
            return np.array(image.convert("RGB") if image.mode == "P" else image)


def _check_mode(path: Path, image: Any) -> None:
    palette = image.mode == "P" and "transparency" not in image.info
    if not palette and image.mode not in ("1", "L", "RGB"):
        raise FileError(
            f"{path} has mode {image.mode}; images must be grayscale or RGB with 8 bits and without "
            "alpha: convert them (mogrify -alpha off -depth 8 *.png)"
        )
