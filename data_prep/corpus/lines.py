"""Lines of a file, decompressed while reading, in bounded memory."""

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from electra_es.errors import import_optional

_CHUNK_BYTES = 1 << 20
# Small, because a decoder returns a whole expanded chunk at once, and nothing of a chunk that is
# corrupt at its end.
_COMPRESSED_CHUNK_BYTES = 4 << 10

# How many bytes of text a compressed byte is taken for where it cannot be known.
COMPRESSION_RATIO = 3

# Called with (reason, place and detail, bytes of text) for each piece of input that cannot be used.
OnBad = Callable[[str, str, int], None]


class Line(NamedTuple):
    """A line, the byte of the decompressed file where it starts, and its size without line end; `data`
    is None if it is too long."""

    start: int
    data: bytes | None
    size: int


class Watched:
    """A file, open for reading, that tells how many bytes are read from it."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._file, self._on_read = file, on_read
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._on_read(len(data))
        return data


def read_lines(file: BinaryIO | Watched, compression: str | None, start: int, end: int | None, limit: int,
               on_bad: OnBad) -> Iterator[Line]:
    """Lines (without line end) that start after byte `start`, or at it if it is 0.

    A line of more than `limit` bytes is not kept in memory. A truncated stream is reported after its
    complete lines; its last, incomplete line is not used.

    Args:
      file: open for reading.
      compression: "gzip", "zstd", "xz", "bz2" or None.
      start: 0 if the file is compressed.
      end: if no line begins between `start` and `end`, reading stops at `end`.
      limit: longest line that is kept, in bytes.
      on_bad: called for a truncated stream.
    """
    if start:
        file.seek(start)
    chunks = (_decompressed(file, compression) if compression
              else iter(lambda: file.read(_CHUNK_BYTES), b""))
    # `pieces`: the parts read so far of the unfinished line that begins at `position`.
    position, pieces, length = start, list[bytes](), 0
    skip = start > 0
    while True:
        try:
            chunk = next(chunks, None)
        except _DECODING_ERRORS as error:
            on_bad("truncated_file", f"byte {position}: {str(error).splitlines()[0]}",
                   length + _bytes_left(file, position))
            return
        if chunk is None:
            if length and not skip:
                yield Line(position, b"".join(pieces) if length <= limit else None, length)
            return
        head, *rest = chunk.split(b"\n")
        length += len(head)
        pieces = [*pieces, head] if length <= limit else []
        if skip and not rest and end is not None and position + length > end:
            return
        for following in rest:
            if not skip:
                yield Line(position, b"".join(pieces) if length <= limit else None, length)
            skip = False
            position += length + 1
            pieces, length = [following], len(following)


def _bytes_left(file: BinaryIO | Watched, decompressed: int) -> int:
    """About how many bytes of text the rest of a compressed file holds, from its first part."""
    at = file.tell()
    read = max(0, at - _COMPRESSED_CHUNK_BYTES)
    ratio = decompressed / read if read and decompressed else COMPRESSION_RATIO
    return int((file.seek(0, os.SEEK_END) - read) * ratio) if at else 0


def _decompressed(file: BinaryIO | Watched, compression: str) -> Iterator[bytes]:
    """Decompressed pieces of a file of one or more members (gzip), streams (xz) or frames (zstd).

    The libraries' own file objects either lose data before a truncated end or do not report it
    (zstandard's `stream_reader`).

    Raises:
      one of `_DECODING_ERRORS`: truncated or corrupt; good data is yielded before.
    """
    decoder: Any = None
    is_empty = True
    while data := file.read(_COMPRESSED_CHUNK_BYTES):
        while data:
            if decoder is None:
                data = data.lstrip(b"\0")  # Padding between members, which gzip and xz allow.
                if not data:
                    break
                decoder, is_empty = _DECODERS[compression](), False
            yield decoder.decompress(data)
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder is not None:
        raise EOFError("ends inside a compressed stream")
    if is_empty:
        raise EOFError(f"nothing in it is {compression}")


class _Zstd:
    """zstandard's decoder, with the error class of the standard library's decoders."""

    def __init__(self) -> None:
        self._zstandard = import_optional("zstandard", "requirements-data.txt")
        self._decoder = self._zstandard.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes) -> bytes:
        try:
            return self._decoder.decompress(data)
        except self._zstandard.ZstdError as error:
            raise OSError(str(error)) from None

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16),
    "zstd": _Zstd,
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}
_DECODING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
