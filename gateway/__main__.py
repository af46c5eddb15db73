"""`python -m gateway` is the command `risk-gateway`; the supervisor starts its children by it."""

from gateway.cli import main

if __name__ == "__main__":
    main()
