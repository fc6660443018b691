"""Definitions of architectures; each becomes `generated/models/modeling_<name>.py`."""
