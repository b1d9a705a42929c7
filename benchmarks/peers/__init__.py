"""Other clients for the same work, to be measured beside Reflux; see README.md."""
