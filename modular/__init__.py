"""The definitions that the compiler reads; it never imports them."""

if __name__ != "unibody.modular":
    raise ImportError(f"import this package as `unibody.modular`; as `{__name__}` every class in it would exist twice")
