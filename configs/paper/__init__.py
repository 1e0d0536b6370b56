"""The paper's tables and figures, each a sweep: `configs/paper/table1.py:small`, `:imagenet`.

What is common to them is in `scales`.
"""
