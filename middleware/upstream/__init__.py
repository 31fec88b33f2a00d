"""The upstream side: who we call, over which connections, and how it went."""
