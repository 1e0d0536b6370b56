"""Experiments: one file each, all starting from `base.py`."""
