"""The tools around the compiler: where a line comes from, what inherits from what, the start of a definition."""
