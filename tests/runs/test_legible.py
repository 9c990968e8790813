import pytest

from torchship.runs.legible import cut, duration, legible, number, signed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("test_accuracy", "test_accuracy"),
        ("정확도", "정확도"),
        ("שלום", "שלום"),
        ("a\x1b[31mb", "a�[31mb"),
        ("a\u202eb\u2066c", "a�b�c"),
        ("a\ud800b", "a�b"),
        ("line\r\n  line", "line line"),
        ("e" + "\u0301" * 50, "e" + "\u0301" * 3),
    ],
)
def test_what_is_not_printed_does_not_reach_the_page(text, shown):
    """Controls, marks of direction and half surrogates are replaced; letters of any script stay."""
    assert legible(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.99172, "0.99172"),
        (-0.5, "−0.5"),
        (1e-7, "10⁻⁷"),
        (-2.5e300, "−2.5×10³⁰⁰"),
        (float("inf"), "too large"),
        (None, "not known"),
    ],
)
def test_numbers_are_written_for_people(value, shown):
    """A minus is a minus, and powers of ten are raised."""
    assert number(value) == shown


def test_small_words():
    """Differences have signs, and times have units."""
    assert (signed(0.5), signed(-0.5), signed(0.0)) == ("+0.5", "−0.5", "0")
    assert (duration(9.64), duration(600), duration(7200)) == ("9.6 s", "10 min", "2.0 h")
    assert cut("abcdef", 4) == "abc…"
