"""Finding out whether a commit is good."""
