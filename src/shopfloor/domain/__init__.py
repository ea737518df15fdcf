"""The rules of the floor: no I/O, no async, no clock, no randomness."""
