"""Who runs the model: a class with the methods that the scenarios ask for, made from a configuration's `backend`.

`load(checkpoint, model)` reads a checkpoint's folder as the configuration's `model` says; then `forward(ids)`, `prefill(ids)`,
`generate(ids, count, arrived)`, `train_step(ids)` and `losses(windows)` run it. `make_linear(in_features, out_features, dtype,
quantizer)` makes one layer. A backend has those methods that it can do.
"""
