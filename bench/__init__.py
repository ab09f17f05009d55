"""The benchmarks: each figure with its reference and their ratio.

`python -m bench --list` names them.
"""
