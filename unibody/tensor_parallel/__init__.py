"""Models of which each process holds a part: tensor and expert parallelism, by the plan that a model declares.

`plans.py` finds the plan, `styles.py` says what its words mean, `layers.py` splits the layers of a model, `loading.py` reads a
checkpoint's slices, `gathering.py` puts the whole together again. Parameters that are split are DTensors; layers compute on what
this process has of them, with the collectives of `collectives.py` around.
"""
