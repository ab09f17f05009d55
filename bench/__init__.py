"""The benchmarks: a command a figure, both sides and their ratio in one run.

`python -m bench --list` names them.
"""
