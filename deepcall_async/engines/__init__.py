"""Other places to run many calls than this process. Each module needs an extra of its own."""
