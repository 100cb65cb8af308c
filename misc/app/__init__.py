"""The page in the browser: photographs, masks to repair, mattes and cut-outs to download. ``python -m misc.app``."""
