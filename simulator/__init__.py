"""A cluster in virtual time that runs the router's own policies on traces."""
