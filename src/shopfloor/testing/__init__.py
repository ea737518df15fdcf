"""For those who write drivers and tests: one conformance suite for each port, a clock, and scripted agents."""
