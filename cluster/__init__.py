"""What an operator runs: the command line, plans and checks of a spec."""
