"""The small data and the small network, for every test of training."""

import bars
import pytest


@pytest.fixture(scope="session")
def tiny():
    return bars.data()


@pytest.fixture
def net():
    return bars.network()
