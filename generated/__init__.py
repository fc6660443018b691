"""What the compiler wrote: one file per definition, and `registry.py`, which says where each class is."""

if __name__ != "unibody.generated":
    raise ImportError(
        f"import this package as `unibody.generated`; as `{__name__}` every class in it would exist twice"
    )
