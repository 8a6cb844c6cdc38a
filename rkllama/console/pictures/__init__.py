"""Pictures on the command line: those that its user names, and small ones on terminals that show them."""
