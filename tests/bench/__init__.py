"""Benchmarks: each prints our figure beside a peer's or a floor's, measured in the same run. Never timed tests."""
