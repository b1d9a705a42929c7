"""Teachers that do as they are told, for tests, benchmarks and users: one in this process, one behind real sockets."""
