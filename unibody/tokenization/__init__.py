"""Tokenizers: text to numbers and back, over files of the Hugging Face ecosystem.

`base.py` is what all tokenizers do; `fast.py` runs the `tokenizers` library, `python.py` is for tokenizers that are written in Python;
`bert.py` and `families.py` are the ready classes; `auto.py` finds the class of a checkpoint.
"""
