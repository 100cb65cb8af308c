"""Photographs of several people composed of cut-outs and backgrounds, with exact alphas."""
