"""A store of its own for every test."""

from __future__ import annotations

import pytest

from curation.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)
