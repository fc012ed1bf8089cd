"""Commands around training and testing."""

import utils  # noqa: F401 - before torch
