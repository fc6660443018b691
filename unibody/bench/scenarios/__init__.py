"""What is measured: a function that takes the backend, the whole configuration, the checkpoint's folder and the meter, and returns the
report of each phase by its name. What it puts into `facts` (such as the tokens that were generated) goes into the report's `facts`.
"""
