"""MCP as its callers see it: what they ask, their sessions, what is said to them."""
