"""Names under which other systems are imported and started; each is thin. The folder itself is on the path."""
