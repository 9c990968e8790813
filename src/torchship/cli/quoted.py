"""What a stranger's program prints, on the user's terminal: marked as quoted, and harmless."""

from __future__ import annotations

import codecs
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torchship.display import clean

_BLOCK = 1 << 16
_BAR = "|"
_LINES = re.compile(r"(?<=[\n\r])")  # a bare carriage return begins a line anew


@contextmanager
def quoted(descriptor: int) -> Iterator[int]:
    """Yield a descriptor for a program's output: it goes to ``descriptor``, each line behind a bar.

    So the program cannot print what looks like a verdict of ours, nor anything that a terminal
    would obey: control characters but line ends and tabs come out as U+FFFD, and so do bytes that
    are not UTF-8. Whoever writes on where nobody reads ``descriptor`` any more gets EPIPE.
    """
    source, sink = os.pipe()
    copier = threading.Thread(target=_copy, args=(source, descriptor), name="quoted")
    copier.start()
    try:
        yield sink
    finally:
        os.close(sink)
        copier.join()


def _copy(source: int, descriptor: int) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    begun = False  # whether the line that is being printed has its bar
    try:
        while data := os.read(source, _BLOCK):
            text = clean(decoder.decode(data), keep="\n\r\t").replace("\r\n", "\n")
            parts = [part for part in _LINES.split(text) if part]
            told = ""
            for part in parts:
                told += part if begun else f"{_BAR} {part}" if part != "\n" else f"{_BAR}\n"
                begun = part[-1] not in "\n\r"
            _write(descriptor, told)
        if begun:
            _write(descriptor, "\n")
    except OSError:  # nobody reads `descriptor`
        pass
    finally:
        with suppress(OSError):
            os.close(source)


def _write(descriptor: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]
