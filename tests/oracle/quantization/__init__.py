"""What proves the quantizers: the reference packages, run in environments of their own, and what they computed."""
