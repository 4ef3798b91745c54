"""Writing of images as PNG files in a folder."""

import io
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from densekit.containers import as_array, is_text, n_rows
from densekit.formats.locations import Location


def write_images(location: Location, pieces: Iterable[Any], n: int) -> None:
    """Write n images in pieces to a new folder, which appears when all are written."""
    assert location.path is not None  # check_target raises for streams.
    folder = location.path.absolute()
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    digits = len(str(n - 1))
    first = 0
    try:
        for rows in pieces:
            images = encoded_images(location, rows)
            temporary.mkdir(exist_ok=True)
            for i, image in enumerate(images, first):
                (temporary / f"{i:0{digits}d}.png").write_bytes(image)
            first += n_rows(rows)
        os.replace(temporary, folder)  # Also replaces an empty folder.
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def encoded_images(location: Location, rows: Any) -> Iterator[bytes]:
    """The bytes of each image as a PNG file; invalid images raise an error immediately."""
    from PIL import Image

    levels = _levels_of(location, rows)

    def encode() -> Iterator[bytes]:
        for image in levels:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            yield buffer.getvalue()

    return encode()


def _levels_of(location: Location, rows: Any) -> np.ndarray:
    """Images as uint8 or bool, (n, height, width) or (n, height, width, 3)."""
    images = None if is_text(rows) or hasattr(rows, "columns") else as_array(rows)
    if images is None or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        actual = type(rows).__name__ if images is None else f"an array of shape {images.shape}"
        raise ValueError(
            f"{location.name}: only images (n, height, width) or (n, height, width, 3) can be "
            f"written to a folder, but the rows are {actual}; use a name that ends in .csv, .parquet, "
            ".npy, .jsonl or .txt"
        )
    if images.shape[3:] == (1,):
        images = images[..., 0]
    if images.dtype.kind == "f":
        images = np.round(images.astype(float) * 255)
    if images.dtype.kind != "b" and images.size and not (0 <= images.min() <= images.max() <= 255):
        raise ValueError(
            f"{location.name}: pixels range from {images.min():g} to {images.max():g}; they must be "
            "integers in 0..255 or floats in [0, 1]"
        )
    return images if images.dtype.kind == "b" and images.ndim == 3 else images.astype(np.uint8)
