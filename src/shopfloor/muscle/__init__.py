"""A small coding agent of our own: for people with a key or a local model and no agent's command line.

It is a program like any other agent (``shopfloor muscle``): the floor knows it by its driver alone, and by the events
that it prints. ``events`` is what it says, ``tools`` what it can do, ``worker`` the turns between model and tools.
"""
