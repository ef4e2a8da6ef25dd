"""How small the server under attack is: small limits are reached fast."""

MEMORY_MB = 512
WORKSPACE_MB = 64
