"""Can this KV be read there, and how does it get there: contract, tickets, transports, connector."""
