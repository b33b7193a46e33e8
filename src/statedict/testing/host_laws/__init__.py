"""The laws of module systems: on states and loads, and on refusals. `_host_under_test` says what a subclass provides."""
