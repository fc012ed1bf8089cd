"""Raw video and text become feature files."""

import utils  # noqa: F401 - before torch
