"""The controller's socket: ``.work/controller.sock``, one JSON object a line, one reply a line, in turn.

A request has a ``verb``; a reply has ``ok``, and either what was asked for or an ``error`` (kind, message, hint).
"""
