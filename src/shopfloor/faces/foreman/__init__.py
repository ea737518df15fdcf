"""The foreman: a conversation that hands out work, and a crew that does it meanwhile."""
