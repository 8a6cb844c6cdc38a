"""The server's operations by dialect: a handler takes a Call and answers a Reply, free of any framework."""
