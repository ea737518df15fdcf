"""The hands: the async loops that perform what the domain decides, through the ports."""
