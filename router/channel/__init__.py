"""Token frames, loads and KV events, from each replica to each router replica over one connection.

Control stays with Ray: the call that places, counts and cancels a request stays open beside it.
"""
