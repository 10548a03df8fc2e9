"""`check_pair`: the laws that a pair must obey, and the report of a check."""
