"""The test-suite. References in ``tests.reference`` share no code with the package they judge."""
