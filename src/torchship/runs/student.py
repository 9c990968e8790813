"""Quantiles of Student's t distribution, to about twelve digits, with the standard library alone.

Sources: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.1 (the tail is half an
incomplete beta function), 26.5.8 (its continued fraction), 6.1.40 (Stirling's series).
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

_LARGE = 50
"""From here on, Stirling's series is exact; below, so are two calls of lgamma."""


@cache
def quantile(p: float, df: int) -> float:
    """Return the value that a t variable with ``df`` degrees of freedom stays below with chance p.

    ``p`` is from 0.5 up to, but not including, 1; ``df`` at least 1. Raises `ValueError`.
    """
    if not 0.5 <= p < 1 or df < 1:
        raise ValueError(f"no quantile {p} with {df} degrees of freedom")
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    wanted = 1 - p
    low, high = 0.0, 2.0
    while tail(high, df) > wanted:
        low, high = high, 2 * high
    t = min(max(NormalDist().inv_cdf(p), low), high)
    for _ in range(200):
        excess = tail(t, df) - wanted
        if excess > 0:
            low = t
        else:
            high = t
        # Newton's step, unless it leaves the interval that is known to hold the quantile
        following = t + excess / density(t, df)
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - t) <= 1e-15 * max(1.0, t):
            return following
        t = following
    return t


def tail(t: float, df: int) -> float:
    """Return the chance that a t variable exceeds ``t``, for t of zero or more."""
    x = df / (df + t * t)
    return _incomplete_beta(df / 2, 0.5, x, t * t / (df + t * t)) / 2


def density(t: float, df: int) -> float:
    """Return the probability density at ``t``."""
    return math.exp(
        -_log_beta_with_half(df / 2) - math.log(df) / 2 - (df + 1) / 2 * math.log1p(t * t / df)
    )


def _incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """Return the regularised I_x(a, b) for b = 1/2, or by its symmetry; complement is 1 - x."""
    if x <= 0:
        return 0.0
    if complement <= 0:
        return 1.0
    log_beta = _log_beta_with_half(a if b == 0.5 else b)
    # log1p keeps the digits of an x that is close to one
    log_x = math.log1p(-complement) if complement < 0.5 else math.log(x)
    log_complement = math.log1p(-x) if x < 0.5 else math.log(complement)
    front = math.exp(a * log_x + b * log_complement - log_beta)
    # A fraction of x converges fast below the mean, and one of 1 - x above it
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, complement) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction 26.5.8 by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d or tiny)
    value = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / ((1.0 + term * d) or tiny)
            c = (1.0 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            return value
    raise ArithmeticError("the continued fraction does not converge")


def _log_beta_with_half(a: float) -> float:
    """Return log B(a, 1/2) = log Gamma(a) + log Gamma(1/2) - log Gamma(a + 1/2)."""
    half = math.log(math.pi) / 2
    if a < _LARGE:
        return math.lgamma(a) + half - math.lgamma(a + 0.5)
    # The two log gammas agree in their first ten digits; the difference of their series does not
    inverse = 1 / (a * a)
    series = (1 / 8 - inverse * (1 / 192 - inverse * (1 / 640 - inverse * 17 / 14336))) / a
    return half - math.log(a) / 2 + series
