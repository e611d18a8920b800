"""Comparison of sampling designs on real and made-up problems; not part of the library."""
