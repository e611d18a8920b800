"""Plots, safe text and the self-contained HTML report."""
