"""Figures as lines: medians and 95th percentiles, ratios against a peer of the same run, and the target."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass
class Sample:
    """Durations of one thing, in seconds, in the order they were measured."""

    name: str
    seconds: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """The median in milliseconds."""
        return median(self.seconds) * 1000

    @property
    def p95(self) -> float:
        """The 95th percentile in milliseconds."""
        return (quantiles(self.seconds, n=20)[-1] if len(self.seconds) > 1 else self.seconds[0]) * 1000

    def line(self) -> str:
        """One row of the report."""
        return f"  {self.name:<58} p50 {self.p50:9.2f} ms   p95 {self.p95:9.2f} ms   n={len(self.seconds)}"

    async def time(self, call: Callable[[], Awaitable[object]]) -> None:
        """Await the call once and keep how long it took."""
        begun = time.perf_counter()
        await call()
        self.seconds.append(time.perf_counter() - begun)


def heading(text: str) -> None:
    """A section of the report."""
    print(f"\n{text}", flush=True)


def verdict(what: str, value: float, target: float, unit: str) -> None:
    """A measured value beside its target; the run goes on either way."""
    mark = "holds" if value <= target else "MISSED"
    print(f"  -> {what}: {value:.2f}{unit} (target <= {target:g}{unit}) {mark}", flush=True)
