"""Events from files into the database, and out of it."""
