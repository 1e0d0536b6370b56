"""Readers of published robustness benchmarks in the layouts that they are downloaded in."""
