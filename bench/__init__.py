"""Comparison of sampling designs on real and made-up problems; not part of the library."""

from curation.threads import set_defaults

set_defaults()  # for all sides alike, before numpy, faiss or torch make their pools
