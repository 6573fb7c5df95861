"""Acts: sockets, files, clocks, metrics, logs.  An adapter fits a port or serves the app."""
