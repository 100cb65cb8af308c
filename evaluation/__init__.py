"""Instance matting quality (IMQ), average precision, and the matting errors they are made of.

In memory: ``quality.evaluate_image`` and ``quality.ImqCounts``. On folders: ``runner.evaluate_folders``, the scripts
``IMQ.py``, ``eval.py``, ``compare.py`` and ``table.py``.
"""
