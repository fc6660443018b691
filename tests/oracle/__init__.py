"""The oracle: transformers, asked for tiny random checkpoints and for the values that generated files must reproduce."""
