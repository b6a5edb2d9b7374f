"""The networks: pure functions of parameters, inputs and caches."""
