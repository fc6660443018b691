"""The transformers dialect: `modular_*.py` files in, the files that transformers checks in, byte for byte."""
