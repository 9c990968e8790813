import math

from hypothesis import example, given
from hypothesis import strategies as st

from torchship.runs.report.axis import Axis

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9)


@given(NUMBERS)
def test_every_finite_value_has_a_place(values):
    """Denormals, the largest floats and equal values: all lie between 0 and 100 percent."""
    for axis in (Axis.over(values), Axis.fitting(values), Axis.over(values, margin=0)):
        places = [axis.at(value) for value in values]
        assert all(0 <= place <= 100 for place in places)
        assert sorted(places) == [axis.at(value) for value in sorted(values)]


@given(NUMBERS)
@example([1.0, 2.5e296])
@example([5e-324, 1e300])
def test_ticks_lie_on_the_axis_with_labels_of_their_own(values):
    """No two ticks say the same, none is beyond the axis, and there are not many."""
    for axis in (Axis.over(values), Axis.fitting(values)):
        ticks = axis.ticks()
        labels = [tick.label for tick in ticks]
        assert len(ticks) <= 10
        assert len(set(labels)) == len(labels)
        assert all(0 <= tick.at <= 100 for tick in ticks)


def test_ticks_are_round():
    """Labels are those that a person would choose, all with the same decimals."""
    axis = Axis.over((0.9172, 0.9944))
    assert [tick.label for tick in axis.ticks()] == ["0.92", "0.94", "0.96", "0.98"]
    assert [tick.label for tick in Axis.over((-3.1, 4.2)).ticks()] == ["−2", "0", "2", "4"]
    assert [tick.label for tick in Axis.over((0, 4200), margin=0).ticks()] == [
        "0", "1000", "2000", "3000", "4000",
    ]  # fmt: skip


def test_a_label_says_where_its_tick_is():
    """Read back, a label is its place to within a hundredth of the axis."""
    for low, high in ((0.0, 1.0), (0.971, 0.9734), (-2e-5, 3e-5), (1e6, 7e6), (3.0, 3.0001)):
        axis = Axis.over((low, high))
        for tick in axis.ticks():
            told = tick.label.replace("−", "-").replace("×10", "e")
            told = told.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
            told = f"1e{told[2:]}" if told.startswith("10-") else told
            assert math.isclose(axis.at(float(told)), tick.at, abs_tol=1)


def test_a_loss_that_falls_by_orders_of_magnitude_is_drawn_by_them():
    """Positive values over a factor of forty get a logarithmic axis; others do not."""
    assert Axis.fitting((2.3, 0.01)).logarithmic
    assert not Axis.fitting((2.3, 0.5)).logarithmic
    assert not Axis.fitting((2.3, 0.0)).logarithmic
    assert [tick.label for tick in Axis.fitting((1e-6, 1.0)).ticks(8)] == [
        "10⁻⁶", "10⁻⁵", "0.0001", "0.001", "0.01", "0.1", "1",
    ]  # fmt: skip
