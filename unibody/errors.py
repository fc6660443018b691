"""The library's own exceptions, all of one base."""

from __future__ import annotations


class UnibodyError(Exception):
    """The base of the exceptions that are the library's own."""


class HubError(UnibodyError, OSError):
    """Something that cannot be had from the Hub, or put there: says what, why, and what to do."""


class RemovedError(UnibodyError, TypeError):
    """What was deprecated and is gone: says what to write instead."""
