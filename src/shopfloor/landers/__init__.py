"""Ways of making verified work part of the target."""
