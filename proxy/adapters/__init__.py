"""Acts: sockets, files, clocks, metrics, logs.  Each adapter fits a port or serves the composition root."""
