"""What agents call, as tools and as commands: thin clients, all is decided at the other end of the socket."""
