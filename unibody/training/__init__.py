"""Training: one loop over any module that returns a loss, on one process or several, resumable to the exact step.

`trainer.py` is what is called and overridden, `loop.py` the loop, `evaluation.py` the pass over held-out data; `arguments.py` are the
settings; `engines/` carries model and optimizer through a step; `data.py` says which examples a step sees, `losses.py` what each
counts; `checkpoints.py` writes and reads what a run resumes from; `callbacks.py`, `flow.py` and `progress.py` watch.
"""
