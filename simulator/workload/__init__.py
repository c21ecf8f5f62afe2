"""What arrives at a simulated cluster: drawn from a seed, or replayed from a trace."""
