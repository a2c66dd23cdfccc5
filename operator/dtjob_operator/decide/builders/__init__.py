"""One pure builder for each kind of child: what it should be, whole, for server-side apply."""
