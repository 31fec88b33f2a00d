"""The composition root: command line, servers, observers, admin port, simulator. Nobody imports it."""
