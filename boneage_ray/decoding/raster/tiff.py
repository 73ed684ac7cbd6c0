"""Decode TIFF (6.0, BigTIFF, the Adobe supplements for deflate and predictors): gray, palette, RGB, CMYK and YCbCr in JPEG.

Each strip or tile is decoded here by itself and must give all of its rows and no more: surplus data mean that the directory
declares a smaller picture than was stored. Libraries do not check this: Pillow, tifffile, OpenCV and imagecodecs all return 60
rows of a picture of 61 whose directory declares 60, and the filled-up picture of a cut JPEG strip with an end marker appended.
tifffile also returns pixels for every cut within the scan of a JPEG strip, and OpenCV for deflate, LZW and PackBits strips that
hold half their rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.raster import jpeg
from boneage_ray.decoding.raster import tiff_directory as tag
from boneage_ray.decoding.raster.gray import full_scale, gray_of, gray_of_ink, gray_of_palette
from boneage_ray.decoding.raster.layout import RasterLayout, check_limits, decode_problem, one_page
from boneage_ray.decoding.raster.tiff_directory import Extents, Tags, one, pages_of

_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_MOST_GAIN = {
    _LZW: 3000,
    _DEFLATE: 1100,
    _OLD_DEFLATE: 1100,
    _PACKBITS: 70,
}  # bytes that one byte can become, at the very most
_MORE = 8  # bytes of room beyond a full strip, so that one that is too long shows
_READ = {_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _INK: 4, _YCBCR: 3}
_NUMBERS = {1: "uint", 2: "int", 3: "float"}  # SampleFormat
# An Adobe segment says how three components are to be understood, for which TIFF has its own tag (T.872, 6.5.3).
_AS_RGB, _AS_YCBCR = (b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) for transform in (0, 1))


@dataclass(frozen=True)
class _Page:
    layout: RasterLayout
    order: str
    compression: int
    photometric: int
    predictor: int
    separate: bool  # each channel has its own strips
    tables: bytes

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.layout.bits > 8 else np.uint8)


class _Block(NamedTuple):
    """A strip or tile: its bytes, its full size, the rows that it must give, and where they go.

    `height`: that of a full one; the last of several strips may be filled up to it.
    """

    data: bytes
    width: int
    height: int
    rows: int
    x: int
    y: int
    plane: int


def decode_tiff(data: bytes, max_megapixels: float) -> tuple[npt.NDArray[Any], int]:
    """Gray pixels as stored, and their orientation. Raises `InputProblem`."""
    order, pages, extents = pages_of(data)
    page = _page(pages[0], order)
    check_limits(page.layout, max_megapixels)
    one_page(len(pages))
    _check_places(data, pages[0], extents)
    return _gray(_pixels(data, pages[0], page), page, pages[0]), page.layout.orientation


def _check_places(data: bytes, tags: Tags, extents: Extents) -> None:
    """Refuse strips and tiles that overlap a directory, and bytes after the last one that belong to nothing.

    A TIFF has no checksum: moved parts and inserted bytes show only where the parts do not meet.
    """
    tiled = tag.TILE_OFFSETS in tags
    starts = tags.get(tag.TILE_OFFSETS if tiled else tag.STRIP_OFFSETS)
    sizes = tags.get(tag.TILE_BYTES if tiled else tag.STRIP_BYTES)
    if starts is None or sizes is None or starts.size != sizes.size or not starts.size:
        return  # a problem of its own where the strips are read
    blocks = [(int(start), int(start) + int(size)) for start, size in zip(starts, sizes, strict=True)]
    low, high = min(start for start, _ in blocks), max(end for _, end in blocks)
    for start, end in extents:
        if start < high and low < end and any(first < end and start < last for first, last in blocks):
            raise decode_problem("unreadable", "TIFF with a strip or tile that overlaps its directory")
    aligned = high % 2 == 1 and data[high:] == b"\0"
    if not any(start >= high for start, _ in extents) and len(data) > high and not aligned:
        raise decode_problem("unreadable", f"TIFF with {len(data) - high} bytes that belong to nothing in it")


def _page(tags: Tags, order: str) -> _Page:
    compression = one(tags, tag.COMPRESSION, _NONE)
    photometric = one(tags, tag.PHOTOMETRIC, _BLACK_IS_ZERO)
    orientation = one(tags, tag.ORIENTATION, 1)
    layout = RasterLayout(
        one(tags, tag.WIDTH, 0),
        one(tags, tag.HEIGHT, 0),
        one(tags, tag.SAMPLES, 1),
        one(tags, tag.BITS, 1),
        orientation if 1 <= orientation <= 8 else 1,
    )
    tables = tags[tag.JPEG_TABLES].tobytes() if tag.JPEG_TABLES in tags else b""
    page = _Page(
        layout, order, compression, photometric, one(tags, tag.PREDICTOR, 1), one(tags, tag.PLANAR, 1) == 2, tables
    )
    _check_supported(page, tags)
    return page


def _check_supported(page: _Page, tags: Tags) -> None:
    bits, channels = page.layout.bits, page.layout.channels
    numbers = _NUMBERS.get(one(tags, tag.SAMPLE_FORMAT, 1), "uint")
    if numbers != "uint" or bits not in (1, 2, 4, 8, 12, 16) or len(set(tags.get(tag.BITS, np.ones(1)).tolist())) > 1:
        raise decode_problem("unsupported_format", f"TIFF of {numbers}{bits} pixels; 8 or 16 bits are read")
    if page.compression not in _READ:
        raise decode_problem(
            "unsupported_format", f"TIFF of compression {page.compression}; none, LZW, deflate, PackBits, JPEG are read"
        )
    colours = _COLOURS.get(page.photometric)
    if colours is None or channels < colours or (page.photometric == _YCBCR and page.compression != _JPEG):
        raise decode_problem(
            "unsupported_format", f"TIFF of {channels} channels and photometric interpretation {page.photometric}"
        )
    narrow = bits not in (8, 16) and (channels > 1 or page.predictor != 1)
    if narrow or (page.photometric in (_PALETTE, _INK) and bits > 8) or (page.compression == _JPEG and bits != 8):
        raise decode_problem("unsupported_format", f"TIFF of {channels} channels of {bits} bits in this form")
    if (
        page.predictor not in (1, 2)
        or one(tags, tag.FILL_ORDER, 1) != 1
        or (page.compression == _JPEG and channels == 2)
    ):
        raise decode_problem(
            "unsupported_format", f"TIFF of predictor {page.predictor} and fill order {one(tags, tag.FILL_ORDER, 1)}"
        )


def _blocks(data: bytes, tags: Tags, page: _Page) -> Iterator[_Block]:
    """The strips or tiles, each of which lies within the file."""
    width, height = page.layout.width, page.layout.height
    tiled = tag.TILE_OFFSETS in tags or tag.TILE_WIDTH in tags
    across = one(tags, tag.TILE_WIDTH, 0) if tiled else width
    down = one(tags, tag.TILE_HEIGHT, 0) if tiled else min(one(tags, tag.ROWS_PER_STRIP, height), height)
    if across < 1 or down < 1 or (-width % across + width) * (-height % down + height) > 4 * width * height + 2**22:
        raise decode_problem("unreadable", f"TIFF in strips or tiles of {across} x {down} pixels")
    offsets = tags.get(tag.TILE_OFFSETS if tiled else tag.STRIP_OFFSETS)
    sizes = tags.get(tag.TILE_BYTES if tiled else tag.STRIP_BYTES)
    planes = page.layout.channels if page.separate else 1
    places = (
        [(x, y, p) for p in range(planes) for y in range(0, height, down) for x in range(0, width, across)]
        if (offsets is not None and offsets.size >= planes * -(-height // down) * -(-width // across))
        else []
    )
    if offsets is None or not places:
        raise decode_problem(
            "no_pixels" if offsets is None else "unreadable", "TIFF without all of its strips or tiles"
        )
    if offsets.size > len(places):
        raise decode_problem(
            "unreadable", f"TIFF of {offsets.size} strips or tiles, where its size needs {len(places)}"
        )
    if sizes is None and len(places) == 1:  # an old writer's: the one strip reaches to the end
        sizes = np.array([len(data) - int(offsets[0])])
        if page.compression == _NONE:
            sizes = np.minimum(sizes, _stride(across, page) * down)
    if sizes is None or sizes.size < len(places):
        raise decode_problem("unreadable", "TIFF without the sizes of its strips or tiles")
    for k, (x, y, plane) in enumerate(places):
        start, size = int(offsets[k]), int(sizes[k])
        if start < 0 or size < 0 or start + size > len(data):
            raise decode_problem("truncated", f"TIFF ends before the last of its {len(places)} strips or tiles")
        rows = down if tiled else min(down, height - y)
        yield _Block(data[start : start + size], across, down, rows, x, y, plane)


def _pixels(data: bytes, tags: Tags, page: _Page) -> npt.NDArray[Any]:
    """(height, width, channels); one channel of luminance for what is stored in JPEG, except for CMYK, which is gray then too."""
    layout = page.layout
    channels = 1 if page.compression == _JPEG else layout.channels
    if page.compression == _JPEG and page.separate and layout.channels > 1:
        raise decode_problem("unsupported_format", "TIFF of JPEG strips, each of one channel")
    out: npt.NDArray[Any] | None = None
    for block in _blocks(data, tags, page):
        pixels = _jpeg_block(block, page) if page.compression == _JPEG else _plain_block(block, page)
        if out is None:  # only now: a file without its first strip costs nothing
            out = np.empty((layout.height, layout.width, channels), page.dtype)
        height, width = out[block.y : block.y + block.rows, block.x : block.x + block.width].shape[:2]
        target = out[block.y : block.y + height, block.x : block.x + width]
        if page.separate:
            target = target[:, :, block.plane : block.plane + 1]
        target[...] = pixels[:height, :width]
    assert out is not None  # _blocks gives one or raises
    return out


def _jpeg_block(block: _Block, page: _Page) -> npt.NDArray[np.uint8]:
    adobe = {_RGB: _AS_RGB, _YCBCR: _AS_YCBCR}.get(page.photometric, b"")
    stream = b"\xff\xd8" + adobe + page.tables[2:-2] + block.data[2:]
    markers = jpeg.walk(stream, max_megapixels=block.width * block.height / 1e6 + 1e-3)
    if markers.layout is None or not markers.ended or any(markers.missing.values()):
        raise decode_problem("truncated", "TIFF with a JPEG strip or tile that ends too early")
    if markers.layout.channels != page.layout.channels:
        raise decode_problem("unreadable", "TIFF with a JPEG strip or tile of another number of channels")
    pixels = jpeg.gray_jpeg(stream, markers.layout, 255 if markers.adobe else 0)
    if pixels.shape[0] not in (block.rows, block.height) or pixels.shape[1] != block.width:
        raise decode_problem("unreadable", "TIFF with a JPEG strip or tile of another size")
    return pixels[:, :, None]


def _plain_block(block: _Block, page: _Page) -> npt.NDArray[Any]:
    """(rows, width, channels of this block)."""
    bits, channels = page.layout.bits, 1 if page.separate else page.layout.channels
    stride = _stride(block.width, page)
    data = _inflated(block.data, page.compression, stride * block.height)
    if len(data) < stride * block.rows:
        found = f"{len(data)} bytes where {stride * block.rows} are needed"
        raise decode_problem("truncated", f"TIFF with a strip or tile of {found}")
    _check_surplus(data, stride, block)
    shape = (block.rows, block.width, channels)
    if bits in (8, 16):
        pixels = np.frombuffer(data, page.order + f"u{bits // 8}", block.rows * block.width * channels).reshape(shape)
        return np.cumsum(pixels, axis=1, dtype=page.dtype) if page.predictor == 2 else pixels
    import imagecodecs

    numbers = imagecodecs.packints_decode(data[: stride * block.rows], page.dtype, bits, runlen=block.width)
    return np.asarray(numbers, page.dtype).reshape(shape)


def _stride(width: int, page: _Page) -> int:
    """Bytes of one row of a strip or tile."""
    return (width * (1 if page.separate else page.layout.channels) * page.layout.bits + 7) // 8


def _check_surplus(data: bytes, stride: int, block: _Block) -> None:
    """Refuse a strip of more than its rows, unless it is the last one of several and filled up.

    Filled up means to the size of a full strip, with one value or with copies of the last row. A few bytes at the end are
    tolerated too, if they are fewer than one column.
    """
    needed = stride * block.rows
    surplus = len(data) - needed
    if surplus < max(1, min(4, block.rows)):
        return
    filling = data[needed:]
    last = data[needed - stride : needed]
    constant = filling.count(filling[0]) == len(filling)
    if surplus == stride * (block.height - block.rows) and (constant or filling == last * (len(filling) // stride)):
        return
    raise decode_problem("unreadable", f"TIFF with a strip or tile of {len(data)} bytes, {needed} are needed")


def _inflated(data: bytes, compression: int, size: int) -> bytes:
    """Decompress a strip or tile to `size` bytes, or to a few more where it holds too many."""
    import imagecodecs

    if size > _MOST_GAIN.get(compression, 1) * (len(data) + 64) and compression != _NONE:
        raise decode_problem("truncated", "TIFF with a strip or tile of far less data than its pixels need")
    try:
        if compression == _LZW:
            return bytes(imagecodecs.lzw_decode(data, out=size + _MORE))
        if compression in (_DEFLATE, _OLD_DEFLATE):
            return bytes(imagecodecs.zlib_decode(data, out=size + _MORE))
        if compression == _PACKBITS:
            return bytes(imagecodecs.packbits_decode(data, out=size + _MORE))
    except (RuntimeError, ValueError) as error:
        raise decode_problem("unreadable", "TIFF could not be decoded; a strip or tile is damaged") from error
    return data


def _gray(pixels: npt.NDArray[Any], page: _Page, tags: Tags) -> npt.NDArray[Any]:
    bits = page.layout.bits
    if page.photometric == _PALETTE:
        return gray_of_palette(pixels[:, :, 0], _colour_map(tags, bits))
    if page.photometric == _INK and page.compression != _JPEG:
        return gray_of_ink(pixels[:, :, :4], white=0)
    gray = gray_of(pixels[:, :, : min(3, pixels.shape[2])] if page.photometric == _RGB else pixels[:, :, 0])
    if bits < 8:
        gray = full_scale(gray, bits)
    if page.photometric == _WHITE_IS_ZERO:
        # 16-bit levels rarely fill their range: the highest one that occurs is black.
        white = {12: 4095, 16: int(gray.max())}.get(bits, 255)
        gray = np.subtract(white, gray, dtype=gray.dtype)
    return gray


def _colour_map(tags: Tags, bits: int) -> npt.NDArray[np.uint8]:
    """(2**bits, 3) RGB of 8 bits; the file holds 16, of which some writers fill only the lower 8."""
    colours = tags.get(tag.COLOUR_MAP)
    if colours is None or colours.size != 3 * 2**bits:
        raise decode_problem("unreadable", "TIFF without its colour map")
    table = colours.reshape(3, -1).T
    return np.ascontiguousarray(table >> 8 if table.max() > 255 else table, dtype=np.uint8)
