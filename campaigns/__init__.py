"""Long tests that try to break the promises: they run for minutes, count what they did, and fill a page of results."""
