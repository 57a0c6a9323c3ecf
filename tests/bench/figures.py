"""What was measured: one figure beside its baseline, the table of them, and medians over rounds."""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured, `value` of `unit`, beside what it is held against in the same run.

    `least_ratio`, `least` and `most` are what is expected; without any, nothing is. `low` and `high` are the extremes
    over the rounds. `p50_ms` and `p99_ms` are latencies in milliseconds, from sending to the whole answer, of what was
    answered by 200; `unavailable` counts what was answered by 503, `conflicts` by 409.
    """

    part: str
    what: str
    value: float
    unit: str = "/s"
    against: str = ""
    baseline: float | None = None
    ratio: float | None = None
    least_ratio: float | None = None
    least: float | None = None
    most: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    unavailable: float | None = None
    conflicts: float | None = None
    low: float | None = None
    high: float | None = None

    def beside(self, baseline: "Figure", least_ratio: float | None = None) -> "Figure":
        """Give the figure with its ratio to a baseline, and the ratio that is expected."""
        return msgspec.structs.replace(
            self,
            against=baseline.what,
            baseline=baseline.value,
            ratio=self.value / baseline.value,
            least_ratio=least_ratio,
        )

    @property
    def expected(self) -> str:
        """What is expected of it, in words."""
        if self.least_ratio is not None:
            return f">= {self.least_ratio:.2f} x"
        if self.least is not None:
            return f">= {self.least:,.0f}{self.unit}"
        return "" if self.most is None else f"<= {self.most:,.0f} {self.unit}"

    @property
    def is_met(self) -> bool | None:
        """Whether it is as expected; None if nothing is."""
        if self.least_ratio is not None:
            return self.ratio is not None and self.ratio >= self.least_ratio
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most


def medians(rounds: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Give each figure's median over the rounds, with its extremes; ratios are medians of each round's own."""
    return [_median_of(figures) for figures in zip(*rounds, strict=True)] if len(rounds) > 1 else list(rounds[0])


def _median_of(figures: Sequence[Figure]) -> Figure:
    values = [figure.value for figure in figures]
    return msgspec.structs.replace(
        figures[0],
        value=median(values),
        baseline=_median(figure.baseline for figure in figures),
        ratio=_median(figure.ratio for figure in figures),
        p50_ms=_median(figure.p50_ms for figure in figures),
        p99_ms=_median(figure.p99_ms for figure in figures),
        unavailable=_median(figure.unavailable for figure in figures),
        conflicts=_median(figure.conflicts for figure in figures),
        low=min(values),
        high=max(values),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the value that this share of them does not exceed; they are in order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(figures: Iterable[Figure]) -> str:
    """Lay figures out in aligned columns."""
    header = (
        "what",
        "figure",
        "p50 ms",
        "p99 ms",
        "503s",
        "409s",
        "baseline",
        "",
        "ratio",
        "expected",
        "met",
        "spread",
    )
    rows = [header, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join("  ".join(_aligned(row, widths)).rstrip() for row in rows)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    on_the_left = {0, 7, 10}
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column in on_the_left else cell.rjust(width)


def _row(figure: Figure) -> tuple[str, ...]:
    verdict = {None: "", True: "yes", False: "NO"}[figure.is_met]
    spread = "" if figure.low is None else f"{_number(figure.low)} to {_number(figure.high)}"
    return (
        f"{figure.part}: {figure.what}",
        f"{_number(figure.value)}{figure.unit if figure.unit == '/s' else f' {figure.unit}'}",
        _number(figure.p50_ms),
        _number(figure.p99_ms),
        f"{figure.unavailable:.0f}" if figure.unavailable else "",
        f"{figure.conflicts:.0f}" if figure.conflicts else "",
        _number(figure.baseline),
        figure.against,
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        figure.expected,
        verdict,
        spread,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
