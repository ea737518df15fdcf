"""Property tests of this layer: bounded, no time limit for one example, the same examples in every CI run."""

import os

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=100)
settings.register_profile("unit-ci", settings.get_profile("unit"), derandomize=True, database=None)
settings.load_profile("unit-ci" if {"CI", "SHOPFLOOR_TEST_REQUIRE_ALL"} & set(os.environ) else "unit")
