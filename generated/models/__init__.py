"""Standalone files, one for each architecture."""
