"""`python -m proxy` is `callsplit`."""

from proxy.cli.main import main

if __name__ == "__main__":
    main()
