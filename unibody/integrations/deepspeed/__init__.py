"""DeepSpeed: its configuration, its processes, and models whose weights it spreads over them.

`configuration.py` and `arguments.py` are about the JSON file, `processes.py` about where it runs, `partition.py` about the
weights, and `initialization.py` about a trainer; what drives it is `unibody/training/engines/deepspeed.py`.
"""
