"""What a stranger's program prints is marked, and cannot steer the terminal."""

import os

import pytest

from torchship.cli.quoted import quoted


def told(*blocks: bytes) -> bytes:
    """Return what reaches the terminal, of what a program writes in these blocks."""
    source, sink = os.pipe()
    try:
        with quoted(sink) as program:
            for block in blocks:
                os.write(program, block)
        return os.read(source, 1 << 16)
    finally:
        os.close(source)
        os.close(sink)


@pytest.mark.parametrize(
    ("blocks", "shown"),
    [
        ((b"one\ntwo\n",), b"| one\n| two\n"),
        ((b"one", b" line\n"), b"| one line\n"),
        ((b"no end",), b"| no end\n"),
        ((b"10%\r20%\r\n",), b"| 10%\r| 20%\n"),
        ((b"a\tb\n\n",), b"| a\tb\n|\n"),
    ],
)
def test_each_line_stands_behind_a_bar(blocks, shown):
    """However the program cuts its lines: no line of its own looks like one of ours."""
    assert told(*blocks) == shown


def test_nothing_reaches_the_terminal_that_it_would_obey():
    """Escape sequences, bells and bytes that are no text come out as replacement characters."""
    shown = told(b"\x1b[2J\x1b]0;owned\x07BIT-IDENTICAL\xff\n").decode()
    assert shown == "| \ufffd[2J\ufffd]0;owned\ufffdBIT-IDENTICAL\ufffd\n"


def test_letters_cut_in_two_are_whole_again():
    """A program's buffer may end within a letter."""
    word = "정확도".encode()
    assert told(word[:4], word[4:], b"\n").decode() == "| 정확도\n"


def test_where_nobody_reads_the_program_is_told():
    """Writing on meets a broken pipe, as it would without us."""
    source, sink = os.pipe()
    os.close(source)
    with quoted(sink) as program, pytest.raises(BrokenPipeError):
        for _ in range(100_000):
            os.write(program, b"more\n")
    os.close(sink)
