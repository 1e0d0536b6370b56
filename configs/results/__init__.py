"""Ours beside every baseline, three seeds each: `digits`, `cifar` and `lite`.

Each is a sweep with one run; what they have in common is in `tables`.
"""
