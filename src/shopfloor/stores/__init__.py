"""Where the log lives: in memory, or in the ``.work`` folder."""
