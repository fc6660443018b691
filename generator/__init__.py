"""The compiler: definitions in `modular/` become standalone files in `generated/`."""

if __name__ == "generator":
    raise ImportError("import it as `unibody.generator`: under its bare name every module would exist twice")
