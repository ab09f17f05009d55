"""Moving cold records from the server's memory to the archive, and recovering a server from it."""
