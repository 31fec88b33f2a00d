"""How long is "24h", how much is "20Mi"? Durations of GEP-2257 and Kubernetes quantities."""

from __future__ import annotations

import re
from fractions import Fraction

_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}")
_PART = re.compile(r"([0-9]{1,5})(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_QUANTITY = re.compile(r"\+?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE](\+|-)?([0-9]{1,2}))?")
_FACTORS: dict[str, Fraction] = {
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
    **{unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
}


def parse_duration(text: str) -> float:
    """Seconds of a duration of GEP-2257 (`1h30m`, `500ms`), the form of Envoy Gateway's policies too.

    Raises ValueError.
    """
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f'"{text}" is not a duration such as 30s or 1h30m')
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def parse_quantity(value: int | str) -> int:
    """Whole bytes of a Kubernetes quantity (`20Mi`, `1G`, `1e6`, 1024), rounded up. Raises ValueError."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is negative")
        return value
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise ValueError(f'"{value}" is not a quantity such as 20Mi or 1G')
    number, suffix, sign, exponent = match.groups()
    amount = Fraction(number if not number.endswith(".") else number[:-1])
    if suffix:
        amount *= _FACTORS[suffix]
    elif exponent:
        amount *= Fraction(10) ** (-int(exponent) if sign == "-" else int(exponent))
    return -(-amount.numerator // amount.denominator)
